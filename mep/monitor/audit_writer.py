"""The audit trail as the monitor hands it over: to a process that writes it, so that a slow disk holds up only who must
wait for it.

The program is `audit_program`. One that dies is replaced, and what was not confirmed is written again, with `again`: it
may be there twice.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from mep.monitor.audit_file import AuditFile
from mep.monitor.audit_program import ANSWER, LINE, NOTICE
from mep.processes import executed, reaping

log = logging.getLogger("mep.audit")

MOST_WAITING = 16 << 20
"""Bytes of lines that wait for a disk that hangs; what comes then is lost, and counted."""
SLOW = 5.0
"""Seconds for which lines wait before `mep status` says so."""
_RESTART_PAUSE = 1.0
_PROGRAM = "mep.monitor.audit_program"


@dataclass
class _Waiting:
    """A line that is not confirmed. missing: so many before it were not sent. sent: to a writer, at least once."""

    line: bytes
    of_task: bool
    missing: int
    outcome: asyncio.Future[str]
    since: float
    sent: bool = False

    def frame(self, number: int) -> bytes:
        """What is sent; from the second time on with a mark."""
        line = self.line[:-1] + b', "again": true}' if self.sent else self.line
        self.sent = True
        return LINE.pack(number, self.of_task, self.missing, len(line)) + line


class AuditWriter:
    """The monitor's end. Belongs to the event loop.

    sync: decisions are confirmed when they are on the disk, and not only written. told: hears what became of each line,
    why it was not written or nothing. second: the path of the file in the public package's form, if any, and the
    endpoint's id.
    """

    def __init__(
        self, file: AuditFile, *, sync: bool, told: Callable[[str], None], second: tuple[str, str] = ("", "")
    ) -> None:
        self._file = file
        self._sync = sync
        self._told = told
        self._second = second
        self._waiting: dict[int, _Waiting] = {}
        self._bytes = 0
        self._number = 0
        self._missing = 0
        self._stream: asyncio.StreamWriter | None = None
        self._ended: asyncio.Future[None] | None = None
        file.close()  # the writer opens it for itself
        self._running = asyncio.get_running_loop().create_task(self._run())

    def send(self, line: bytes, *, of_task: bool) -> asyncio.Future[str]:
        """Hands over a line. The future: why it was not written, or empty."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self._bytes + len(line) > MOST_WAITING:
            self._missing += 1
            outcome.set_result(f"{self._file.path}: its disk does not answer, and too many lines wait for it")
            self._told(outcome.result())
            return outcome
        self._number += 1
        waiting = _Waiting(line, of_task, self._missing, outcome, time.monotonic())
        self._missing = 0
        self._waiting[self._number] = waiting
        self._bytes += len(line)
        if self._stream is not None:
            self._stream.write(waiting.frame(self._number))
        return outcome

    def waits(self) -> str:
        """Says that the disk is slow, when it is."""
        oldest = next(iter(self._waiting.values()), None)
        seconds = 0.0 if oldest is None else time.monotonic() - oldest.since
        return f"{len(self._waiting)} lines have waited for the disk for {seconds:.0f} s" if seconds > SLOW else ""

    async def stop(self, timeout: float) -> None:
        """Waits until all is confirmed, at most so many seconds, and lets the process end: it writes what it has."""
        if outcomes := [waiting.outcome for waiting in self._waiting.values()]:
            await asyncio.wait(outcomes, timeout=timeout)
        if self._waiting:
            log.critical("%s: %d lines are not confirmed by the disk", self._file.path, len(self._waiting))
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        if self._ended is not None:
            await asyncio.wait({self._ended}, timeout=0 if self._waiting else timeout)

    async def _run(self) -> None:
        while True:
            try:
                await self._have_written()
            except (OSError, asyncio.IncompleteReadError) as e:
                log.error("the process that writes the audit trail is gone, and is started anew: %s", e)
            await asyncio.sleep(_RESTART_PAUSE)

    async def _have_written(self) -> None:
        """One process, for as long as it lives. Raises OSError or IncompleteReadError at its end."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = (str(self._file.path), str(int(self._sync)), *self._second)
            pid, pidfd = executed.start(_PROGRAM, theirs.fileno(), *arguments)
        self._ended = ended = loop.create_future()
        reaping.when_ended(pid, pidfd, lambda _code, _usage: ended.set_result(None))
        ours.setblocking(False)
        reader, self._stream = await asyncio.open_unix_connection(sock=ours)
        try:
            for number, waiting in self._waiting.items():
                self._stream.write(waiting.frame(number))
            while True:
                number, length = ANSWER.unpack(await reader.readexactly(ANSWER.size))
                text = (await reader.readexactly(length)).decode(errors="replace")
                if number == NOTICE:
                    log.warning("%s", text)
                else:
                    self._answered(number, text)
        finally:
            self._stream.close()
            self._stream = None

    def _answered(self, number: int, why: str) -> None:
        waiting = self._waiting.pop(number)
        self._bytes -= len(waiting.line)
        self._told(why)
        if not waiting.outcome.done():  # whoever waited may have been cancelled
            waiting.outcome.set_result(why)
