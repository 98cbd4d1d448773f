"""The commands that ask what would be, and change nothing: `mep check`, `map`, `explain`, `render`.

They call what the running manager calls (`checks`, `dry_run`), and end with 1 where it would refuse.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mep.cli import tables
from mep.cli.common import DEFAULT, Json, Name, load, paths, profile_directory, trusted_run_directory
from mep.daemon.failed import Failed, exit_codes

if TYPE_CHECKING:
    from mep.profile.profile import Profile
    from mep.request.account import Account
    from mep.request.mapped_identity import MappedIdentity

T = TypeVar("T")
Identity = Annotated[list[str] | None, typer.Option(help="User name of an identity; again for linked ones.")]
IdentitySet = Annotated[Path | None, typer.Option(help="JSON file: a list of records, as Globus Auth has.")]
User = Annotated[
    str,
    typer.Option(help="The local account that it would run as; no mapping is asked.", show_default=False),
]
_COLOURS = {"ok": "green", "note": "yellow", "FAIL": "red"}
Options = Annotated[str, typer.Option(help="user_endpoint_config: a JSON object, or @FILE.")]


def check(
    name: Name = DEFAULT,
    files: Annotated[bool, typer.Option("--files", help="Only the files of the profile, and the programs.")] = False,
    as_json: Json = False,
) -> None:
    """Try everything that could fail later: files, programs, template, login, service, broker. Changes nothing."""
    from mep.cli import checks

    directory = profile_directory(name)
    codes = []
    for line in checks.lines(directory, paths(), files_only=files):
        said = json.dumps({"verdict": line.verdict, "what": line.what, "text": line.text})
        verdict = tables.coloured(f"{line.verdict:<4}", _COLOURS.get(line.verdict, ""))
        print(said if as_json else f"{verdict}  {line.what}: {line.text}", flush=True)
        codes += [line.exit_code] if line.exit_code else []
    if codes:
        code = os.EX_CONFIG if os.EX_CONFIG in codes else codes[0]
        raise Failed(code, f"endpoint {name} cannot work like this; the lines marked FAIL say why")


def map_(
    name: Name = DEFAULT, identity: Identity = None, identity_set: IdentitySet = None, as_json: Json = False
) -> None:
    """Show whom an identity would become, by which rule, and what was passed over. For rules on ids: --identity-set."""
    directory = profile_directory(name)
    mapping, _ = _show_mapping(load(directory), _records(directory, identity, identity_set), quiet=as_json)
    if as_json:
        print(json.dumps(mapping, indent=2))


def explain(
    name: Name = DEFAULT,
    identity: Identity = None,
    identity_set: IdentitySet = None,
    user: User = "",
    options: Options = "{}",
    as_json: Json = False,
) -> None:
    """Show what a user's start would come to: account, program, configuration; or at which stage it is refused."""
    from mep.cli import checks, dry_run
    from mep.monitor.containment import limits

    directory = profile_directory(name)
    given, profile = _given_options(options), load(directory)
    records, mapping, become = _become(profile, identity, identity_set, user, quiet=as_json)
    _answer(dry_run.obey(paths().orders(name), records, become[1]))
    plan = _answer(dry_run.launch_plan(profile, records, given, become))
    verdict = _answer(dry_run.ask_endpoint(profile, plan))
    _answer(dry_run.launch(profile, plan, trusted_run_directory(name)))
    broker = checks.port_of(profile, plan.handover["config"])
    if broker is not None and broker.exit_code:
        raise Failed(1, f"it would not check in: {broker.what}: {broker.text}")
    notes, bounds = list(verdict.notes), limits.describe(profile.config.resources)
    if warning := plan.handover["ep_info"].get("warning"):
        notes.append(f"the user would read: {warning}")
    if as_json:
        started = {"program": plan.argv, "log": "/".join(plan.log), "pam_service": plan.pam, "limits": bounds}
        configured = {"configuration": plan.handover["config"], "job": verdict.script or None}
        said = {**mapping, **started, "variables": dict(plan.environment), "notes": notes, **configured}
        print(json.dumps(said, indent=2))
        return
    print(f"program   {' '.join(plan.argv)}\nlog       {'/'.join(plan.log)}")
    print(f"session   {'none (PAM is off)' if plan.pam is None else f'PAM service {plan.pam}'}")
    print(f"limits    {bounds}, for all user endpoints of the account")
    for variable, value in plan.environment.items():
        print(f"variable  {variable}={value}")
    for note in notes:
        print(f"note      {note}")
    print(f"configuration:\n{plan.handover['config']}")
    if verdict.script:
        print(f"job (capitals stand for what is known when it runs):\n{verdict.script}")


def render(
    name: Name = DEFAULT,
    identity: Identity = None,
    identity_set: IdentitySet = None,
    user: User = "",
    options: Options = "{}",
) -> None:
    """Show the configuration that a user endpoint would get."""
    from mep.cli import dry_run

    asked = bool(identity or identity_set)
    if not user and not asked and os.geteuid() == 0:
        raise Failed(os.EX_USAGE, "say for whom: give --identity, --identity-set or --user")
    given, profile = _given_options(options), load(profile_directory(name))
    if asked:
        _, _, (_, owner) = _become(profile, identity, identity_set, user, quiet=True)
        user = owner.name
    rendered = _answer(dry_run.render(profile, user or getpass.getuser(), given))
    print(rendered.read())
    if warning := rendered.warning():
        typer.echo(f"the user would read: {warning}", err=True)


def _become(
    profile: Profile, identity: list[str] | None, identity_set: Path | None, user: str, *, quiet: bool
) -> tuple[list[dict[str, Any]], dict[str, Any], tuple[MappedIdentity, Account]]:
    """The identities that are meant, what is told of them, and which account they become. --user: the mapping is not
    asked."""
    from mep.cli import dry_run

    if not user:
        records = _records(profile.directory, identity, identity_set)
        return (records, *_show_mapping(profile, records, quiet=quiet))
    if identity or identity_set:
        raise Failed(os.EX_USAGE, "give --user, an account, or --identity and --identity-set, which become one")
    become = _answer(dry_run.take(profile, user))
    if not quiet:
        _show_account(become[1])
    return [dry_run.identity_record(user)], _facts(become[1]), become


def _show_mapping(
    profile: Profile, records: list[dict[str, Any]], *, quiet: bool
) -> tuple[dict[str, Any], tuple[MappedIdentity, Account]]:
    """What the mapping comes to; printed, line by line as it is found, unless that is to be quiet."""
    from mep.cli import dry_run

    passed_over = [
        {"identity": each.identity, "where": each.where, "reason": each.reason}
        for each in _answer(dry_run.decide(profile, records)).passed_over
    ]
    for each in () if quiet else passed_over:
        print(f"passed over  {each['identity']}: {each['where']}: {each['reason']}")
    found, owner = _answer(dry_run.identify(profile, records))
    if not quiet:
        _show_account(owner)
        print(f"identity  {found.identity}\nrule      {found.rule}")
    told = {**_facts(owner), "identity": found.identity, "rule": found.rule, "passed_over": passed_over}
    return told, (found, owner)


def _show_account(owner: Account) -> None:
    print(f"account   {owner.name} (uid {owner.uid}, gid {owner.gid}, home {owner.home})")


def _facts(owner: Account) -> dict[str, Any]:
    return {"account": owner.name, "uid": owner.uid, "gid": owner.gid, "home": owner.home}


def _answer(stage: Coroutine[Any, Any, T]) -> T:
    """The answer of a stage; a refusal is an answer, too, with exit code 1."""
    from mep.processes.helper import HelperUnavailable
    from mep.request.refusal import Refused

    try:
        return asyncio.run(stage)
    except Refused as e:
        refusal = e.refusal
        told = f"the user would read: {refusal.reason_for_user}"
        raise Failed(1, f"refused at stage {refusal.stage}: {refusal.reason_for_admin}\n{told}") from None
    except HelperUnavailable as e:
        raise Failed(e.exit_code, str(e)) from None


def _records(directory: Path, identity: list[str] | None, identity_set: Path | None) -> list[dict[str, Any]]:
    from mep.cli import dry_run
    from mep.reader import registered

    with exit_codes():
        records = [dry_run.identity_record(each, registered.owner_id(directory, each)) for each in identity or []]
    if identity_set is not None:
        records += _json(str(identity_set), _given_text(identity_set), list)
    if not records:
        raise Failed(os.EX_USAGE, "give --identity or --identity-set")
    return records


def _given_options(options: str) -> dict[str, Any]:
    text = _given_text(Path(options[1:])) if options.startswith("@") else options
    return _json("--options", text, dict)


def _given_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise Failed(os.EX_NOINPUT, f"{path}: cannot be read: {e}") from None


def _json(where: str, text: str, kind: type[T]) -> T:
    from identity import jsontext

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Failed(os.EX_DATAERR, f"{where}: not JSON: {e}; {jsontext.remedy(e)}") from None
    if not isinstance(value, kind):
        raise Failed(os.EX_DATAERR, f"{where}: expected a JSON {'object' if kind is dict else 'list'}")
    return value
