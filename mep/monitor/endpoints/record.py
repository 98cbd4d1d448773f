"""A user endpoint that runs: in memory (`UserEndpoint`), and in a folder under /run, where the next manager finds it.

The folder is `/run/mep/NAME/UEP`: memory, root's, gone with the next boot. It holds

    state.json    which process, of whom, and the newest start command for it; rewritten whenever one of these changes
    credentials   what the user endpoint reads when it has to connect again (see `credentials`); in state.json too,
                  because a manager may die while it writes this one, which is rewritten in place
    pipe          on which it reports: lines `ready` after its first heartbeat, `working` after its first result,
                  `stopping` when it takes no more tasks, `stopped` before it ends cleanly
    audit         with high assurance: on which it tells of each task, a record with each write

`spawn` makes a endpoint, `table` keeps the table of them; `cli` counts and stops those that no manager looks after.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.lifecycle import State
from mep.processes.process import Process
from mep.request.account import Account
from mep.request.start_endpoint import StartEndpoint

_FORMAT = 2
"""Of state.json. Whoever changes what is written raises it, and goes on reading what the version before wrote."""
_READABLE = (1, 2)
_COMMAND = tuple(f.name for f in dataclasses.fields(StartEndpoint) if f.name != "credentials")

_GARBAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, OSError)
"""What reading a file that is not ours, or not whole, may end in."""
T = TypeVar("T")


class RecordError(Exception):
    """A folder under /run cannot be understood. The text names it."""


@dataclass
class UserEndpoint:
    """A user endpoint that runs.

    command: the newest start command for it.
    folder: its folder under /run.
    pidfd, pipe, audit: descriptors, None when closed.
    started: monotonic seconds, which go on from one manager to the next.
    executed: its program runs; before that, its start command has not been acked.
    remembered_until: until then (monotonic seconds) a clean exit starts it again.
    checked_in_after: seconds from start to first heartbeat; None until then, or when its program does not say.
    scope: the unit of systemd that holds it and all that it starts; None without systemd.
    worked: it has delivered a result. configuration: of the plan that it was started by.
    stopping_since: since then (monotonic seconds) it takes no more tasks, if it has said so.
    adopted: an earlier manager started it, so nobody is told its exit status; `said_stopped` stands for it.
    """

    command: StartEndpoint
    account: Account
    process: Process
    folder: Path
    credentials: CredentialFile
    pidfd: int | None
    pipe: int | None
    started: float
    audit: int | None = None
    executed: bool = False
    scope: str | None = None
    worked: bool = False
    configuration: str = ""
    state: State = State.STARTING
    remembered_until: float = 0.0
    checked_in_after: float | None = None
    stopping_since: float | None = None
    adopted: bool = False
    said_stopped: bool = False

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        return self.process.pid

    def save(self) -> None:
        """Writes state.json, whole or not at all."""
        facts = {
            "format": _FORMAT,
            "process": dataclasses.asdict(self.process),
            "account": dataclasses.asdict(self.account),
            "command": {name: getattr(self.command, name) for name in _COMMAND},
            "key": self.credentials.key,
            "credentials": self.credentials.seal(self.command.credentials).decode(),
            "started": self.started,
            "executed": self.executed,
            "scope": self.scope,
            "worked": self.worked,
            "configuration": self.configuration,
            "state": self.state.value,
            "remembered_until": self.remembered_until,
        }
        temporary = self.folder / "state.new"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(facts, file)
        temporary.rename(self.folder / "state.json")

    def remove(self) -> None:
        """Deletes the folder: there is nothing left to adopt."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Closes the descriptors; nothing of it is heard any more."""
        for descriptor in (self.pidfd, self.pipe, self.audit):
            if descriptor is not None:
                os.close(descriptor)
        self.pidfd = self.pipe = self.audit = None


def make_folder(folder: Path, *, audited: bool) -> tuple[int, int | None]:
    """A new folder with its pipes; their reading ends. What was there before is deleted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.mkfifo(folder / "pipe", 0o600)
    if audited:
        os.mkfifo(folder / "audit", 0o600)
    return _reading_ends(folder)


def writing_end(folder: Path) -> int:
    """A descriptor of the pipe for the user endpoint.

    For both directions, so that a report is kept for the next manager while there is none; and never waiting, so that
    a pipe that is full holds nobody up.
    """
    return os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def auditing_end(folder: Path) -> int:
    """A descriptor of the pipe for audit records. For both directions, too, but waiting: a user endpoint does not go on
    before its record is on its way. Each write is a record, and is read as one (O_DIRECT, pipe(2))."""
    descriptor = os.open(folder / "audit", os.O_RDWR | os.O_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
    return descriptor


def load(folder: Path) -> UserEndpoint:
    """The endpoint in `folder`, adopted. Its pidfd is None when it has ended since.

    Raises:
        RecordError: the folder's files are missing or not what `save` writes.
    """
    try:
        facts = _read(folder)
        file = CredentialFile(folder / "credentials", _of(str, facts["key"]))
        endpoint = UserEndpoint(
            command=_command(facts["command"], file.unseal(facts["credentials"].encode())),
            account=Account(**{**facts["account"], "groups": tuple(facts["account"]["groups"])}),
            process=Process(**facts["process"]),
            folder=folder,
            credentials=file,
            pidfd=None,
            pipe=None,
            started=_of(float, facts["started"]),
            executed=_of(bool, facts["executed"]),
            scope=None if facts.get("scope") is None else _of(str, facts["scope"]),
            worked=_of(bool, facts.get("worked", False)),
            configuration=_of(str, facts.get("configuration", "")),
            state=State(facts["state"]),
            remembered_until=_of(float, facts["remembered_until"]),
            adopted=True,
        )
        endpoint.pipe, endpoint.audit = _reading_ends(folder)
    except _GARBAGE as e:
        raise RecordError(f"{folder}: cannot be adopted: {type(e).__name__}: {e}") from None
    try:
        endpoint.pidfd = endpoint.process.open()
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
        return whose(folder)[0].open()
    except _GARBAGE as e:
        raise RecordError(f"{folder}: cannot be understood: {type(e).__name__}: {e}") from None


def whose(folder: Path) -> tuple[Process, str | None]:
    """The process that is on record in `folder`, and the scope that it was put into. Raises RecordError."""
    try:
        facts = json.loads((folder / "state.json").read_bytes())
        scope = facts.get("scope")
        return Process(**facts["process"]), None if scope is None else _of(str, scope)
    except _GARBAGE as e:
        raise RecordError(f"{folder}: cannot be understood: {type(e).__name__}: {e}") from None


def _read(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
    if facts["format"] not in _READABLE:
        raise ValueError(f"format {facts['format']!r}; this version knows {_READABLE}")
    return facts


def _command(facts: Mapping[str, Any], credentials: Mapping[str, Any]) -> StartEndpoint:
    return StartEndpoint(**facts, credentials=credentials)


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value


def _reading_ends(folder: Path) -> tuple[int, int | None]:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    pipe = os.open(folder / "pipe", flags)
    try:
        return pipe, os.open(folder / "audit", flags) if (folder / "audit").exists() else None
    except OSError:
        os.close(pipe)
        raise
