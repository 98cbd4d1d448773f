"""What a next manager needs to answer the tasks of a user endpoint that a crash of the whole host has ended.

`state.json` lies in memory (/run) and is gone then, and so is every process. But the tasks that were taken, and results
that were not sent, lie in the home of their user; a user endpoint of the same name answers them at its start. So what
starts it, account and newest start command with its sealed credentials, lies on the disk, too: a file for each user
endpoint that has not come to a clean end, or whose user could not be told of its end; mode 0600, in a folder of root's.
Earlier versions wrote credentials that were not sealed: these get a file of their own, which is passed on unread.

Files are written by a forked child: a disk that hangs holds up nobody. What comes within a moment is written by one.
Asked by `stages` when a user endpoint starts, is refreshed, adopted and ends; `monitor.manager` has the others
recovered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import json
import logging
import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mep.monitor.endpoints import record
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes import forked
from mep.processes.pidfd import send_signal
from mep.processes.process import Process
from mep.processes.sealed_file import SealedFile
from mep.profile import whole_file
from mep.request.credentials import Credentials
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

LONGEST = 14 * 24 * 3600.0
"""Seconds after which a file is of no use any more: the service has forgotten the tasks."""
MOMENT = 0.2
"""Seconds for which more is gathered before a child is forked: many starts at once need few children. What a crash of
the host costs then, it costs while the child writes, too."""
WRITE_TIMEOUT = 60.0
"""Seconds for the child that writes."""
_FORMAT = 3
_UNSEALED = (1, 2)
"""Formats with credentials that are not sealed."""
_APART = ".credentials"
"""The suffix of the files of these."""
_GARBAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError)
"""What reading a file that is not ours, or not whole, may end in."""


@dataclass(frozen=True)
class Kept:
    """A user endpoint of an earlier manager. uid: of the account that it ran as. refusal: as of a `UserEndpoint`."""

    command: StartEndpoint
    uid: int
    boot: str
    process: Process
    refusal: Refusal | None = None

    def ask_to_stop(self) -> bool:
        """Whether it still runs, though it is no longer on record in /run; it has been asked to stop then, and its
        successor waits for it."""
        if self.boot != boot_id():
            return False
        try:
            pidfd = self.process.open()
        except OSError:
            return False
        if pidfd is None:
            return False
        send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)
        return True


class KeptEndpoints:
    """The files of one profile's user endpoints, in `folder`. Belongs to the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, bytes | None] = {}
        """The digest of what has been written, by name; None for what has been removed."""
        self._waiting: dict[str, str | None] = {}
        self._writing: asyncio.Task[None] | None = None

    def keep(self, endpoint: UserEndpoint) -> None:
        """It runs, and this is its newest start command."""
        try:
            self._write(endpoint.name, _text(endpoint))
        except RecursionError:  # of a command that nobody could write
            log.error("%s is not kept on disk; a crash of this host would leave its tasks unanswered", endpoint.name)

    def forget(self, name: str) -> None:
        """Its tasks have been answered, or their user has been told."""
        self._write(name, None)

    async def left(self, known: Collection[str]) -> list[Kept]:
        """Those that are none of the `known`: of before a crash, or of a stop in which not all tasks were answered."""
        try:
            await forked.run(functools.partial(take_apart, self._folder), WRITE_TIMEOUT)
        except OSError as e:
            log.error("%s: what the version before has written cannot be taken over: %s", self._folder, e)
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                kept = _read(path)
                if kept is None:
                    self.forget(path.stem)
                elif path.stem not in known:
                    found.append(kept)
            except _GARBAGE as e:
                log.error("%s: cannot be understood, and is passed over: %s: %s", path, type(e).__name__, e)
        return found

    async def flush(self) -> None:
        """Waits until everything has been written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _write(self, name: str, text: str | None) -> None:
        digest = None if text is None else hashlib.sha256(text.encode()).digest()
        if name in self._written and self._written[name] == digest:
            return  # of a name that is not among them nobody knows what is on the disk
        self._written[name] = digest
        self._waiting[name] = text
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(MOMENT)
            texts, self._waiting = self._waiting, {}
            try:
                await forked.run(functools.partial(apply, self._folder, texts), WRITE_TIMEOUT)
            except OSError as e:
                for name in texts:
                    self._written.pop(name, None)
                log.error(
                    "%s cannot be written (%s); after a crash of this host tasks may stay unanswered", self._folder, e
                )


def apply(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Writes or removes the files of these names, and returns when that is on the disk itself. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / f"{name}.json"
        if text is None:
            path.unlink(missing_ok=True)
        else:
            whole_file.replace(path, text, durable=True)
        path.with_suffix(_APART).unlink(missing_ok=True)
    whole_file.sync(folder)


def take_apart(folder: Path) -> None:
    """Gives credentials that are not sealed a file of their own, beside the one that they were in. Raises OSError.

    In a child: who reads them has them in memory.
    """
    for path in folder.glob("*.json"):
        try:
            facts, written = json.loads(path.read_bytes()), path.stat().st_mtime
            if facts["format"] not in _UNSEALED:
                continue
            credentials = json.dumps(facts["command"].pop("credentials"))
            rest = json.dumps({**facts, "format": _FORMAT, "key": ""})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # whoever reads it will say so
        whole_file.replace(path.with_suffix(_APART), credentials, durable=True)
        whole_file.replace(path, rest, durable=True)
        os.utime(path, (written, written))
    if folder.exists():
        whole_file.sync(folder)


@functools.cache
def boot_id() -> str:
    """Another one after each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _text(endpoint: UserEndpoint) -> str:
    facts = {
        "format": _FORMAT,
        "boot": boot_id(),
        "process": dataclasses.asdict(endpoint.process),
        "uid": endpoint.account.uid,
        "account": endpoint.account.name,
        **record.command(endpoint),
    }
    return json.dumps(facts)


def _read(path: Path) -> Kept | None:
    """None when it is too old to be of use. Raises _GARBAGE."""
    if time.time() - path.stat().st_mtime > LONGEST:
        return None
    facts = json.loads(path.read_bytes())
    if facts["format"] != _FORMAT:
        raise ValueError(f"format {facts['format']!r}; this version knows {_FORMAT}")
    unsealed = facts["key"] == ""
    credentials = Credentials(SealedFile.copy(path.with_suffix(_APART))) if unsealed else record.sealed(facts)
    command = StartEndpoint(**record.texts_of_user(facts["command"]), credentials=credentials)
    if command.name != path.stem or not isinstance(facts["uid"], int):
        raise ValueError("not what was written")
    return Kept(command, facts["uid"], str(facts["boot"]), Process(**facts["process"]), record.refusal(facts))
