"""The commands by which an admin steers what runs: `mep kill`, `drain`, `undrain`, `ban`, `unban`.

Each is one request on the manager's control socket (`asking`); the manager decides, and puts it on record.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mep.cli.common import DEFAULT, Json, Name, acting, trusted_run_directory
from mep.daemon.failed import Failed

if TYPE_CHECKING:
    from mep.cli.asking import Obeyed
    from mep.processes.control_protocol import Kind

IN_ORDER = "exit status 0"
TIMEOUT = 110.0
"""Seconds that a command waits: what is killed may take most of a minute."""

Reason = Annotated[str, typer.Option("--reason", help="Why, in words that the users concerned read, too.")]
Until = Annotated[
    str,
    typer.Option(
        "--until", help="The end: 18:00, 2026-12-01T08:00, 2026-12-01T08:00Z, +2h, +1d12h.", show_default="no end"
    ),
]
Who = Annotated[str, typer.Argument(help="An account; or an identity: its user name, or its id.", show_default=False)]


def kill(
    name: Name = DEFAULT,
    user_endpoint: Annotated[
        str, typer.Argument(help="A user endpoint: its name, or a part that no other one has.", show_default=False)
    ] = "",
    user: Annotated[
        str,
        typer.Option("--user", "--identity", help="Those of an account, or of the identity that asked for them."),
    ] = "",
    all_: Annotated[bool, typer.Option("--all", help="All of this endpoint.")] = False,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """End user endpoints, with their tasks and batch jobs, and wait for it. They stay away until the user submits."""
    from mep.processes.control_protocol import Kind

    if [bool(user_endpoint), bool(user), all_].count(True) != 1:
        raise Failed(os.EX_USAGE, "say what to end: a user endpoint (`mep kill NAME USER-ENDPOINT`), --user or --all")
    if user_endpoint:
        kind, target = Kind.KILL, _full_name(name, user_endpoint)
    else:
        kind, target = (Kind.KILL_OF, _who(user)) if user else (Kind.KILL_ALL, "")
    done = _order(name, kind, target, reason, as_json=as_json)
    if not as_json:
        _print_ended(done.done)
    _need_ended(done.done)


def drain(
    name: Name = DEFAULT,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words that users read, too. Mandatory.")] = "",
    until: Until = "",
    as_json: Json = False,
) -> None:
    """Start no new user endpoints; those that run go on. Who submits reads why, and until when."""
    from mep.processes.control_protocol import Kind

    if not reason:
        raise Failed(os.EX_USAGE, "--reason: say why; who submits meanwhile reads it")
    end = _end(until)
    _order(name, Kind.DRAIN, "", reason, end, as_json=as_json)
    if not as_json:
        print(f"Endpoint {name} starts no new user endpoints{_until(end)}. Those that run go on.")


def undrain(name: Name = DEFAULT, as_json: Json = False) -> None:
    """Start new user endpoints again."""
    from mep.processes.control_protocol import Kind

    done = _order(name, Kind.UNDRAIN, "", as_json=as_json).done
    if not as_json:
        print(f"Endpoint {name} starts user endpoints again." if done.get("was") else f"{name} was not drained.")


def ban(
    name: Name,
    who: Who,
    reason: Reason = "",
    until: Until = "",
    ends: Annotated[bool, typer.Option("--kill", help="End what runs of them, too, and wait for that.")] = False,
    as_json: Json = False,
) -> None:
    """Start no new user endpoints for an account, or for who has an identity; kept over restarts."""
    from mep.accounts import look_up
    from mep.processes.control_protocol import Kind

    target, end = _who(who), _end(until)
    done = _order(name, Kind.BAN_AND_END if ends else Kind.BAN, target, reason, end, as_json=as_json).done
    if not as_json:
        print(f"{target} is banned from endpoint {name}{_until(end)}.")
        if ends:
            _print_ended(done)
        else:
            print(f"User endpoints of {target} that run go on; --kill ends them.")
        if "@" not in target and not _is_id(target) and look_up.account(who.strip()) is None:
            print(f"note: this system knows no account {who.strip()} now.")
    if ends:
        _need_ended(done)


def unban(name: Name, who: Who, as_json: Json = False) -> None:
    """Take a ban back."""
    from mep.processes.control_protocol import Kind

    target = _who(who)
    done = _order(name, Kind.UNBAN, target, as_json=as_json).done
    if not done.get("was"):
        raise Failed(os.EX_DATAERR, f"{target} was not banned from endpoint {name}; `mep status` names who is")
    if not as_json:
        print(f"{target} is not banned any more from endpoint {name}.")


def _order(name: str, kind: Kind, target: str, reason: str = "", until: int = 0, *, as_json: bool = False) -> Obeyed:
    """Has the manager carry out an order, and prints the outcome as JSON, if that is wanted. Raises Failed."""
    from mep.cli import asking
    from mep.processes.control_protocol import MOST_REASON, Kind

    ends = (Kind.KILL, Kind.KILL_OF, Kind.KILL_ALL, Kind.BAN_AND_END)
    if not reason.isprintable() or len(reason.encode()) > MOST_REASON:
        raise Failed(os.EX_USAGE, f"--reason: one line of at most {MOST_REASON} bytes, please")
    try:
        with acting(name, "give a manager orders") as run_directory:
            jobs = _batch_jobs(run_directory) if kind in ends else {}
            done = asking.order(run_directory, kind, target, reason, until, TIMEOUT)
    except asking.NotObeyed as e:
        raise Failed(os.EX_DATAERR, str(e)) from None
    except ValueError as e:
        raise Failed(os.EX_USAGE, str(e)) from None
    for each in done.done.get("user_endpoints", ()):
        in_order = each["ended"] == IN_ORDER  # then it has cancelled them
        each["batch_jobs"] = [] if in_order else jobs.get(each["name"], [])
    if as_json:
        facts = {"endpoint": name, "order": kind.name.lower(), "target": target or None, "reason": reason or None}
        print(json.dumps({**facts, "until": until or None, "kept": done.kept, **done.done}))
    if not done.kept:
        error = done.done.get("error")
        raise Failed(os.EX_CANTCREAT, f"in force, but not on the disk, so a restart undoes it: {error}")
    return done


def _batch_jobs(run_directory: Path) -> dict[str, list[str]]:
    """The batch jobs of the user endpoints that run, by their own words; nothing when nobody can tell."""
    from mep.cli import asking

    try:
        running = asking.user_endpoints(run_directory) or []
    except (asking.NoAnswer, OSError):
        return {}
    said = {str(each.get("name")): each.get("batch_jobs") for each in running}
    return {name: [str(job) for job in jobs] for name, jobs in said.items() if isinstance(jobs, list)}


def _full_name(name: str, part: str) -> str:
    """The name of the user endpoint that runs and has this part; what was given when there is none. Raises Failed."""
    from mep.monitor.endpoints import record

    found = [folder.name for folder in record.folders(trusted_run_directory(name)) if part in folder.name]
    if part in found or not found:
        return part
    if len(found) > 1:
        raise Failed(os.EX_DATAERR, f"{part!r} is a part of several names: {', '.join(found)}")
    return found[0]


def _who(given: str) -> str:
    """An account, or an identity. Raises Failed."""
    from mep.monitor.stages.orders import is_somebody
    from mep.processes.control_protocol import MOST_TARGET

    text = given.strip().lower()
    if not is_somebody(text) or len(text) > MOST_TARGET:
        forms = "an account (alice), the user name of an identity (alice@example.org), or the id of one"
        raise Failed(os.EX_USAGE, f"{given!r} can have no user endpoint; say {forms}")
    return text


def _is_id(text: str) -> bool:
    import uuid

    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _end(text: str) -> int:
    """The end of an order in seconds since the epoch; 0: none. Raises Failed."""
    from mep.cli import times

    try:
        return times.until(text, datetime.datetime.now().astimezone()) if text else 0
    except ValueError as e:
        raise Failed(os.EX_USAGE, f"--until: {e}") from None


def _until(seconds: int) -> str:
    if not seconds:
        return ""
    return f" until {datetime.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _print_ended(done: dict[str, Any]) -> None:
    named = done.get("user_endpoints") or []
    for each in named:
        became = each["ended"] or f"IS STILL THERE (pid {each['pid']})"
        print(f"{each['name']}  {each['account']}  {became}")
        if jobs := each["batch_jobs"]:
            print(f"  its batch jobs may go on for a while; it named: {', '.join(jobs)}")
    if (more := done.get("concerned", 0) - len(named)) > 0:
        print(f"and {more} more")
    if not named:
        print("No such user endpoint runs.")


def _need_ended(done: dict[str, Any]) -> None:
    if left := done.get("left"):
        raise Failed(os.EX_TEMPFAIL, f"{left} cannot be ended: does a file system not answer? They start nothing more")
