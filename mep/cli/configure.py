"""The command that makes a profile: `mep configure`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mep.cli.common import Name, profile_directory
from mep.daemon.failed import Failed


def configure(
    name: Name,
    display_name: Annotated[str | None, typer.Option(help="A name for people, shown by the service.")] = None,
    contact_email: Annotated[str | None, typer.Option(help="Whom to write to about this endpoint.")] = None,
    multi_user: Annotated[bool, typer.Option(help="Accepted for compatibility; there is no other kind.")] = True,
    endpoint_config: Annotated[
        Path | None, typer.Option("--endpoint-config", "--core-config", help="Use this file as config.yaml.")
    ] = None,
    template_config: Annotated[Path | None, typer.Option(help="Use this file as the template.")] = None,
    schema_config: Annotated[Path | None, typer.Option(help="Use this file as the schema.")] = None,
    user_env_config: Annotated[Path | None, typer.Option(help="Use this file as user_environment.yaml.")] = None,
    id_mapping_config: Annotated[Path | None, typer.Option(help="Use this file as identity mapping.")] = None,
) -> None:
    """Make a profile: a folder of commented files. Nothing that exists is overwritten."""
    from mep.cli import new_profile
    from mep.profile import profile

    if not multi_user:
        raise Failed(os.EX_USAGE, "only multi-user endpoints exist here; leave --no-multi-user out")
    directory = profile_directory(name)
    given = {
        profile.CONFIG: endpoint_config,
        profile.TEMPLATE: template_config,
        profile.SCHEMA: schema_config,
        profile.ENVIRONMENT: user_env_config,
        profile.MAPPING: id_mapping_config,
    }
    try:
        new_profile.make(directory, given, display_name, contact_email)
    except new_profile.NotMade as e:
        raise Failed(e.exit_code, str(e)) from None
    print(f"Made the profile of endpoint {name}: {directory}\n")
    for file, use in new_profile.USES.items():
        print(f"  {file:<38} {use}")
    print(f"\nEdit the identity mapping, then:\n\n{_next_steps(name)}")


def _next_steps(name: str) -> str:
    """As the guide has them: the service where the package's profiles lie, the command elsewhere."""
    from mep.cli.common import paths

    service = paths().log is not None
    run = f"systemctl enable --now mep@{name}" if service else f"mep start {name}"
    steps = {
        "mep login": "log in with Globus; or set client_credentials_path in config.yaml",
        f"mep check {name}": "try everything that could fail later",
        run: "run it, as root: an ordinary user cannot start user endpoints for others",
    }
    return "\n".join(f"  {command:<34} # {what}" for command, what in steps.items())
