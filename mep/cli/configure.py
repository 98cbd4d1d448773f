"""The commands that make a profile: `mep configure`, and out of a public one of old, `mep migrate-to-template-capable`.

`new_profile` and `old_profile` do it; `new_policy` makes the authentication policy that options may ask for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mep.cli.common import DEFAULT, Name, NewName, need_profile, paths, profile_directory
from mep.cli.new_policy import DEFAULT_DESCRIPTION, DEFAULT_NAME
from mep.daemon.failed import Failed

_FILES, _POLICY = "Files to use instead of the package's", "A new authentication policy"
_TRUE, _FALSE = frozenset({"true", "t", "1", "yes", "y", "on"}), frozenset({"false", "f", "0", "no", "n", "off"})

GivenFile = Path | None
Text = str | None


def configure(
    name: NewName = DEFAULT,
    display_name: Annotated[Text, typer.Option(help="A name for people, shown by the service.")] = None,
    contact_email: Annotated[Text, typer.Option(help="Whom to write to about this endpoint.")] = None,
    multi_user: Annotated[
        Text, typer.Option(metavar="true|false", help="Without root, there is no difference; root's is always `true`.")
    ] = None,
    high_assurance: Annotated[
        bool, typer.Option("--high-assurance", help="Nothing starts that is not on record; needs a policy for that.")
    ] = False,
    subscription_id: Annotated[Text, typer.Option(help="The subscription that the endpoint belongs to.")] = None,
    auth_policy: Annotated[
        Text, typer.Option(help="The authentication policy that the service tries users against.")
    ] = None,
    endpoint_config: Annotated[
        GivenFile,
        typer.Option(
            "--endpoint-config", "--core-config", "--manager-config", help="As config.yaml.", rich_help_panel=_FILES
        ),
    ] = None,
    template_config: Annotated[GivenFile, typer.Option(help="As the template.", rich_help_panel=_FILES)] = None,
    schema_config: Annotated[GivenFile, typer.Option(help="As the schema.", rich_help_panel=_FILES)] = None,
    user_env_config: Annotated[
        GivenFile, typer.Option(help="As user_environment.yaml.", rich_help_panel=_FILES)
    ] = None,
    id_mapping_config: Annotated[GivenFile, typer.Option(help="As identity mapping.", rich_help_panel=_FILES)] = None,
    auth_policy_project_id: Annotated[
        Text, typer.Option(help="The project that it lies in; asked for when not given.", rich_help_panel=_POLICY)
    ] = None,
    auth_policy_display_name: Annotated[
        str, typer.Option(help="Its name for people.", rich_help_panel=_POLICY)
    ] = DEFAULT_NAME,
    auth_policy_description: Annotated[
        str, typer.Option(help="What it is for.", rich_help_panel=_POLICY)
    ] = DEFAULT_DESCRIPTION,
    auth_policy_mfa_required: Annotated[
        bool,
        typer.Option("--auth-policy-mfa-required", help="With a second factor only.", rich_help_panel=_POLICY),
    ] = False,
    allowed_domains: Annotated[
        Text, typer.Option(help="Of these only, with commas: globus.org,*.edu", rich_help_panel=_POLICY)
    ] = None,
    excluded_domains: Annotated[Text, typer.Option(help="Of these not.", rich_help_panel=_POLICY)] = None,
    auth_timeout: Annotated[
        int | None, typer.Option(min=0, help="Seconds that a login may be old.", rich_help_panel=_POLICY)
    ] = None,
) -> None:
    """Make a profile: a folder of commented files. Nothing that exists is overwritten."""
    from mep.cli import new_policy, new_profile
    from mep.profile import profile

    _check_multi_user(multi_user)
    directory = profile_directory(name)
    given = {
        profile.CONFIG: endpoint_config,
        profile.TEMPLATE: template_config,
        profile.SCHEMA: schema_config,
        profile.ENVIRONMENT: user_env_config,
        profile.MAPPING: id_mapping_config,
    }
    wanted = new_policy.wanted(
        existing=auth_policy,
        subscription_id=subscription_id,
        display_name=auth_policy_display_name,
        description=auth_policy_description,
        project_id=auth_policy_project_id,
        allowed_domains=allowed_domains,
        excluded_domains=excluded_domains,
        high_assurance=high_assurance,
        mfa=auth_policy_mfa_required,
        timeout=auth_timeout,
    )
    made = None
    try:
        if wanted is not None:
            new_profile.check(directory, given)
            made = auth_policy = new_policy.make(wanted, auth_policy_project_id)
            print(f"Made authentication policy {made}.")
        trail = paths().log_file(directory).with_name("audit.log")
        keys = {
            "subscription_id": subscription_id,
            "authentication_policy": auth_policy,
            "high_assurance": high_assurance or None,
            "audit_log_path": str(trail) if high_assurance else None,
        }
        new_profile.make(directory, given, display_name, contact_email, keys)
    except new_profile.NotMade as e:
        hint = "" if made is None else f"; the policy is there now: give --auth-policy {made} next time"
        raise Failed(e.exit_code, f"{e}{hint}") from None
    print(f"Made the profile of endpoint {name}: {directory}\n")
    for file, use in new_profile.uses().items():
        print(f"  {file:<38} {use}")
    first = "Edit the identity mapping, then" if os.geteuid() == 0 else "It is for your own tasks alone. Next"
    print(f"\n{first}:\n\n{_next_steps(name)}")


def migrate_to_template_capable(
    name: Name = DEFAULT, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Make a profile with a template out of one of the public package's whose config.yaml has the engine in it."""
    from mep.cli import old_profile

    directory = profile_directory(name)
    need_profile(directory)
    if not yes:
        typer.confirm(f"Move what is the template's out of {directory / 'config.yaml'}?", abort=True)
    for line in old_profile.migrate(directory):
        print(line)


def _check_multi_user(said: str | None) -> None:
    """Raises Failed."""
    if said is None or said.lower() in _TRUE:
        return
    if said.lower() not in _FALSE:
        raise Failed(os.EX_USAGE, f"--multi-user {said}: expected true or false")
    if os.geteuid() != 0:
        return  # it maps nobody but its owner
    text = "only multi-user endpoints exist here: one that maps nobody but yourself is one, too"
    raise Failed(os.EX_USAGE, f"{text}; leave --multi-user out, and name yourself alone in the identity mapping")


def _next_steps(name: str) -> str:
    """As the guide has them: the service where the package's profiles lie, the command elsewhere."""
    service = paths().log is not None
    run = f"systemctl enable --now mep@{name}" if service else f"mep start {name}"
    steps = {
        "mep login": "log in with Globus; or set client_credentials_path in config.yaml",
        f"mep check {name}": "try everything that could fail later",
        run: "run it"
        if service or os.geteuid() != 0
        else "run it, as root, so that it can start others' user endpoints",
    }
    return "\n".join(f"  {command:<34} # {what}" for command, what in steps.items())
