"""Tells what happened, for `mep logs` and `mep why`. From the audit trail, logs, and the manager's memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mep.cli import log_files, watching
from mep.cli.common import load, need_profile, paths, profile_directory, profiles, trusted_run_directory
from mep.daemon.failed import Failed
from mep.processes.printable import escaped
from mep.request import start_endpoint

if TYPE_CHECKING:
    from mep.request.account import Account

_WORDS = 20
"""Lines of a user endpoint's own log in a story."""
_NOT_FOUND = 1
_REQUEST = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_OWNED = ("starting", "started", "adopted")
"""Events that say whose a user endpoint is, and have no words of strangers before that."""
_OWNER = (
    rf"\S+ \S+ INFO mep\.audit: \[[\w.:-]+\] (?:{'|'.join(_OWNED)}) "
    r"\((?:configuration=\S+ )?endpoint={} account=([\w.@-]+) uid=(\d+)[ )]"
)
"""The same in a line of text."""
_OF_WHOM = ("account", "uid", "endpoint", "identity", "username", "pid")
_SAID_ALREADY = frozenset({"time", "event", "request", "stage", "reason", "configuration", "mapping", "lost_lines"})


def logs(name: str, uep: str, request: str, *, follow: bool, lines: int, as_json: bool) -> None:
    """Shows the log of a manager, or of one of its user endpoints. Raises Failed."""
    directory = profile_directory(name)
    need_profile(directory)
    if uep and request:
        raise Failed(os.EX_USAGE, "--uep and --request: say one of them; `mep why REQUEST` tells the whole story")
    log = paths().log_file(directory)
    try:
        if uep:
            found = _of_user_endpoint(name, _whole(name, uep), lines, follow)
        elif request:
            found = _of_request(log, _checked(_REQUEST, request, "request"), follow)
        else:
            found = _of_manager(log, lines, follow)
        any_line = False
        with contextlib.suppress(KeyboardInterrupt):
            for line in found:
                print(json.dumps({"line": line}) if as_json else line, flush=follow)
                any_line = True
    except FileNotFoundError as e:
        raise Failed(os.EX_NOINPUT, f"{e.filename}: there is no log yet") from None
    except PermissionError:
        raise Failed(os.EX_NOPERM, "must be root to read logs") from None
    if request and not any_line and not follow:
        raise Failed(
            _NOT_FOUND, f"no line of the log of {name} is about request {request}: see whether the id is whole"
        )


def why(request: str, name: str, *, as_json: bool) -> None:
    """Tells the whole story of a request. Raises Failed."""
    _checked(_REQUEST, request, "request")
    directories = [profile_directory(name)] if name else profiles()
    stories = [story for directory in directories if (story := _story(directory, request)) is not None]
    if not stories:
        where = name or "any profile here"
        text = f"no request {request} is known of {where}: see whether the id is whole, and the trail of that day there"
        raise Failed(_NOT_FOUND, text)
    if as_json:
        print(json.dumps(stories, indent=2))
        return
    print("\n\n".join("\n".join(map(escaped, _told(story))) for story in stories))


def _story(directory: Path, request: str) -> dict[str, Any] | None:
    """All that is known of a request in one profile; None when that is nothing. Raises Failed."""
    log = paths().log_file(directory)
    try:
        lines = [line for line in log_files.naming(log_files.older(log), request) if _is_about(line, request)]
        decisions = _decisions(directory, request)
    except PermissionError:
        lines, decisions = [], []
    decisions = decisions or _remembered(directory.name, request)
    if not (decisions or lines):
        return None
    story: dict[str, Any] = {"profile": directory.name, "request": request, "decisions": decisions}
    for each in decisions:
        story |= {key: each[key] for key in _OF_WHOM if each.get(key) is not None}
    decided = "mep.audit: [", '"logger": "mep.audit"'
    story["log"] = [line for line in lines if not (decisions and any(mark in line for mark in decided))]
    if isinstance(endpoint := story.get("endpoint"), str):
        story["own_words"] = _own_words(story, endpoint)
    return story


def _is_about(line: str, request: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_.:-]){re.escape(request)}(?![A-Za-z0-9_.:-])", line) is not None


def _decisions(directory: Path, request: str) -> list[dict[str, Any]]:
    """The lines of the audit trail, in their order."""
    trail = None
    with contextlib.suppress(Failed):  # a profile that is broken now may have been in force
        trail = load(directory).config.audit_log_path
    found = []
    for line in () if trail is None else log_files.naming(log_files.older(trail), request):
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and said.get("request") == request and said.get("event") != "task":
                found.append(said)
    return found


def _remembered(name: str, request: str) -> list[dict[str, Any]]:
    """The same in the memory of the manager's worker, if it runs: where there is no trail."""
    from mep.cli import asking

    with contextlib.suppress(asking.NoAnswer, Failed, OSError):
        return list(reversed(asking.events(watching.Asked(name).run_directory(), request=request) or []))
    return []


def _own_words(story: Mapping[str, Any], endpoint: str) -> list[str]:
    """The end of the log of its user endpoint."""
    from mep.cli import user_log

    account = _account(story.get("account"), story.get("uid"))
    if account is None or not start_endpoint.NAME.fullmatch(endpoint):
        return []
    try:
        return list(user_log.read(account, endpoint, _WORDS))
    except user_log.NotRead as e:
        return [f"(not to be had: {e})"]


def _told(story: Mapping[str, Any]) -> Iterator[str]:
    """The story for people: its end first. With strangers' words as they are."""
    decisions = story["decisions"]
    whom = story.get("username") or story.get("identity")
    yield f"Request {story['request']}{f' of {whom}' if whom else ''}, profile {story['profile']}"
    last = next((each for each in reversed(decisions) if each.get("event") in _ENDS), None)
    if last is not None:
        yield f"  in short: {_outcome(last)}"
    for each in decisions:
        yield f"  {_clock(each.get('time'))}  {_line(each)}"
    if story["log"]:
        yield "The manager's log:"
        yield from (f"  {line}" for line in story["log"])
    if story.get("own_words"):
        yield f"The end of the log of user endpoint {story['endpoint']} of {story.get('account')}, its own words:"
        yield from (f"  {line}" for line in story["own_words"])


_ENDS = ("refused", "exited", "started", "refreshed", "superseded", "withdrawn")


def _outcome(said: Mapping[str, Any]) -> str:
    if said["event"] == "refused":
        return f"refused at stage {said.get('stage')}: {said.get('reason')}"
    if said["event"] == "exited":
        reason = f": {said['reason']}" if said.get("reason") else ""
        return f"its user endpoint has ended, {said.get('ending')}{reason}"
    if said["event"] in ("started", "refreshed"):
        return "a user endpoint was started for it" if said["event"] == "started" else "its user endpoint ran already"
    return str(said["event"])


def _line(said: Mapping[str, Any]) -> str:
    stage = f" at stage {said['stage']}" if said.get("stage") else ""
    reason = f": {said['reason']}" if said.get("reason") else ""
    more = [f"{key}={value}" for key, value in said.items() if key not in _SAID_ALREADY and value not in (None, "")]
    return f"{said.get('event')}{stage}{reason}{f' ({chr(32).join(more)})' if more else ''}"


def _clock(when: object) -> str:
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if isinstance(when, str):
            return f"{datetime.fromisoformat(when.replace('Z', '+00:00')).astimezone():%Y-%m-%d %H:%M:%S}"
        if isinstance(when, (int, float)):
            return f"{datetime.fromtimestamp(when).astimezone():%Y-%m-%d %H:%M:%S}"
    return "?"


def _of_manager(log: Path, lines: int, follow: bool) -> Iterator[str]:
    yield from log_files.last(log, lines)
    if follow:
        yield from log_files.follow(log)


def _of_request(log: Path, request: str, follow: bool) -> Iterator[str]:
    log.stat()
    older = log_files.naming(log_files.older(log), request)
    yield from (line for line in older if _is_about(line, request))
    if follow:
        yield from (line for line in log_files.follow(log) if _is_about(line, request))


def _of_user_endpoint(name: str, uep: str, lines: int, follow: bool) -> Iterator[str]:
    from mep.cli import user_log

    account = _owner(name, uep)
    try:
        yield from user_log.read(account, uep, lines, follow=follow)
    except user_log.NotRead as e:
        raise Failed(os.EX_NOINPUT, f"the log of user endpoint {uep} of {account.name}: {e}") from None


def _whole(name: str, uep: str) -> str:
    """The whole name of a user endpoint, of which `mep ps` shows the end. Raises Failed."""
    from mep.cli import asking

    _checked(start_endpoint.NAME, uep, "user endpoint")
    with contextlib.suppress(asking.NoAnswer, OSError):
        running = [str(each.get("name")) for each in asking.user_endpoints(trusted_run_directory(name)) or []]
        found = [each for each in running if each == uep or each.rpartition(".")[2].startswith(uep)]
        if len(found) > 1:
            raise Failed(os.EX_USAGE, f"{', '.join(found)} all begin with {uep}; say which one is meant")
        if found:
            return _checked(start_endpoint.NAME, found[0], "user endpoint")
    return uep


def _owner(name: str, uep: str) -> Account:
    """Whose it is: of one that runs, or of one that the log or the audit trail remembers. Raises Failed."""
    directory = profile_directory(name)
    said = _recorded(name, uep)
    if said is None:
        for line in log_files.naming(log_files.older(paths().log_file(directory)), uep):
            said = _said_of_owner(line, uep) or said
    account = None if said is None else _account(*said)
    if account is None:
        text = f"nobody here knows user endpoint {uep} of {name}, or its account is gone"
        raise Failed(
            os.EX_NOINPUT,
            f"{text}; `mep ps {name}` has those that run; one that has ended needs its whole name, uep.ID.ID",
        )
    return account


def _said_of_owner(line: str, uep: str) -> tuple[str, int] | None:
    """Whose it is by this line of the log, in either form; users' own words, which may name anybody, do not count."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            said = json.loads(line)
            if (said["logger"], said["endpoint"]) == ("mep.audit", uep) and said["event"] in _OWNED:
                return str(said["account"]), int(said["uid"])
        return None
    found = re.match(_OWNER.format(re.escape(uep)), line)
    return None if found is None else (found[1], int(found[2]))


def _recorded(name: str, uep: str) -> tuple[str, int] | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads((trusted_run_directory(name) / uep / "state.json").read_bytes())["account"]
        return str(facts["name"]), int(facts["uid"])
    return None


def _account(name: object, uid: object) -> Account | None:
    """The account of that name; None when there is none, or it is not that uid's any more."""
    from mep.accounts import look_up

    found = look_up.account(name) if isinstance(name, str) else None
    return found if found is not None and found.uid == uid and found.uid != 0 else None


def _checked(form: re.Pattern[str], text: str, what: str) -> str:
    """Raises Failed."""
    if not form.fullmatch(text):
        raise Failed(os.EX_USAGE, f"{escaped(text)!r} is no id of a {what}")
    return text
