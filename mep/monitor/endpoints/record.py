"""What is on record of a user endpoint, in its folder's `state.json`: so the next manager finds it.

It says which process it is, of whom, in which state, and the newest start command for it; it is rewritten whenever one
of these changes. The credentials are in it, too, sealed, because a manager may die while it writes their own file,
which is rewritten in place. `spawn` and `table` save, `table` loads; `cli.unmanaged` asks who runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mep.monitor.endpoints import run_folder
from mep.monitor.endpoints.credentials import KEY, TOKEN, CredentialFile
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes.process import Process
from mep.processes.sealed_file import SealedFile
from mep.profile import whole_file
from mep.request.account import Account, ShellFault
from mep.request.credentials import Credentials
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint

_FORMAT = 6
"""Of state.json. Whoever changes what is written raises it, and goes on reading what the version before wrote."""
_READABLE = (1, 2, 3, 4, 5, 6)
_ASKED_BEFORE_3 = {
    State.STARTING: State.STARTING_ASKED,
    State.RUNNING: State.RUNNING_ASKED,
    State.STOPPING: State.STOPPING_ASKED,
}
"""The states that were told apart by `remembered_until` alone."""
_TEXTS = ("user_options", "user_runtime", "identity_set")
_COMMAND = tuple(f.name for f in dataclasses.fields(StartEndpoint) if f.name != "credentials")

_GARBAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, OSError)
"""What reading a file that is not ours, or not whole, may end in."""
T = TypeVar("T")


class RecordError(Exception):
    """A folder under /run cannot be understood. The text names it."""


def save(endpoint: UserEndpoint) -> None:
    """Writes state.json, whole or not at all. Raises OSError."""
    facts = {
        "format": _FORMAT,
        "process": dataclasses.asdict(endpoint.process),
        "account": dataclasses.asdict(endpoint.account),
        **command(endpoint),
        "started": endpoint.started,
        "executed": endpoint.executed,
        "scope": endpoint.scope,
        "audit_session": endpoint.audit_session,
        "worked": endpoint.worked,
        "configuration": endpoint.configuration,
        "functions": endpoint.functions,
        "state": endpoint.state.value,
        "remembered_until": endpoint.remembered_until,
    }
    whole_file.replace(endpoint.folder / "state.json", json.dumps(facts))


def load(folder: Path) -> UserEndpoint:
    """The user endpoint in `folder`, adopted. Its pidfd is None when it has ended since.

    Raises:
        RecordError: the folder's files are missing or not what `save` writes.
    """
    try:
        facts = _read(folder)
        file = CredentialFile(folder / "credentials", _of(str, facts["key"]))
        endpoint = UserEndpoint(
            command=StartEndpoint(**texts_of_user(facts["command"]), credentials=sealed(facts)),
            account=_account(facts["account"]),
            process=Process(**facts["process"]),
            folder=folder,
            credentials=file,
            pidfd=None,
            pipe=None,
            started=_of(float, facts["started"]),
            executed=_of(bool, facts["executed"]),
            scope=_maybe(str, facts.get("scope")),
            audit_session=_maybe(int, facts.get("audit_session")),
            worked=_of(bool, facts.get("worked", False)),
            configuration=_of(str, facts.get("configuration", "")),
            functions=_maybe(str, facts.get("functions")),
            state=_state(facts),
            remembered_until=_of(float, facts["remembered_until"]),
            refusal=refusal(facts),
            adopted=True,
        )
        endpoint.pipe, endpoint.audit = run_folder.reading_ends(folder)
    except _GARBAGE as e:
        raise RecordError(f"{folder}: cannot be adopted: {type(e).__name__}: {e}") from None
    try:
        endpoint.pidfd = endpoint.process.open(executed=endpoint.executed)
    except _GARBAGE as e:
        endpoint.close()
        raise RecordError(f"{folder}: cannot be adopted: {type(e).__name__}: {e}") from None
    return endpoint


def folders(run_directory: Path) -> list[Path]:
    """The folders of user endpoints that were started and not seen to end."""
    return sorted(path.parent for path in run_directory.glob("*/state.json"))


def open_process(folder: Path) -> int | None:
    """A pidfd of the process that is on record in `folder`; None when it has ended.

    Raises:
        RecordError: nobody can tell.
    """
    try:
        facts = json.loads((folder / "state.json").read_bytes())
        return Process(**facts["process"]).open(executed=_of(bool, facts.get("executed", True)))
    except _GARBAGE as e:
        raise RecordError(f"{folder}: cannot be understood: {type(e).__name__}: {e}") from None


def owners(run_directory: Path) -> dict[str, int]:
    """The uid of each user endpoint that runs, by its name. One that nobody can tell anything of is left out."""
    found = {}
    for folder in folders(run_directory):
        with contextlib.suppress(RecordError, *_GARBAGE):
            pidfd = open_process(folder)
            if pidfd is not None:
                os.close(pidfd)
                found[folder.name] = _of(int, json.loads((folder / "state.json").read_bytes())["account"]["uid"])
    return found


def whose(folder: Path) -> tuple[Process, str | None, int | None]:
    """The process that is on record in `folder`, the scope that it was put into, and its audit session.

    Raises:
        RecordError: nobody can tell.
    """
    try:
        facts = json.loads((folder / "state.json").read_bytes())
        scope, session = _maybe(str, facts.get("scope")), _maybe(int, facts.get("audit_session"))
        return Process(**facts["process"]), scope, session
    except _GARBAGE as e:
        raise RecordError(f"{folder}: cannot be understood: {type(e).__name__}: {e}") from None


def _read(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
    if facts["format"] not in _READABLE:
        raise ValueError(f"format {facts['format']!r}; this version knows {_READABLE}")
    return facts


def _account(facts: Mapping[str, Any]) -> Account:
    fault = facts.get("shell_fault")  # a manager of before has not written it
    found = None if fault is None else ShellFault(fault)
    return Account(**{**facts, "groups": tuple(facts["groups"]), "shell_fault": found})


def _state(facts: Mapping[str, Any]) -> State:
    state, remembered_until = State(facts["state"]), _of(float, facts["remembered_until"])
    if facts["format"] < 3 and remembered_until > time.monotonic():
        return _ASKED_BEFORE_3[state]
    return state


def command(endpoint: UserEndpoint) -> dict[str, object]:
    """What is on record of its newest start command."""
    return {
        "command": {name: getattr(endpoint.command, name) for name in _COMMAND},
        "refusal": None if endpoint.refusal is None else dataclasses.asdict(endpoint.refusal),
        "key": endpoint.command.credentials.key,
        "credentials": endpoint.command.credentials.file.read().decode(),
    }


def refusal(facts: Mapping[str, Any]) -> Refusal | None:
    """What its newest start command is told; None when it starts it again. Raises _GARBAGE."""
    said = facts.get("refusal")  # a version of before has not written it, and passes it over
    return None if said is None else Refusal(**said)


def sealed(facts: Mapping[str, Any]) -> Credentials:
    """The credentials of a start command, as they are on record. Raises _GARBAGE."""
    token, key = _of(str, facts["credentials"]).encode(), _of(str, facts["key"])
    if not TOKEN.fullmatch(token) or not KEY.fullmatch(key):
        raise ValueError("its credentials are not sealed")
    return Credentials(SealedFile.of(token), key)


def texts_of_user(command: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a start command, of which earlier versions kept some as objects, not as JSON text."""
    old = {name: value for name, value in command.items() if name in _TEXTS and not isinstance(value, str)}
    return {**command, **{name: json.dumps(value) for name, value in old.items()}}


def _maybe(kind: type[T], value: object) -> T | None:
    return None if value is None else _of(kind, value)


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value
