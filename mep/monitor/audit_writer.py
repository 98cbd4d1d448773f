"""The process that writes the audit trail, so that a slow disk holds up only who must wait for it.

The monitor hands lines over through a socket and goes on. The process takes what has come, appends line by line, waits
once for the disk for all of them, and confirms them in their order. It is a fork of the monitor, and root as it is, for
after a rotation the trail is opened anew; it has one socket. It ends when its monitor is gone and what came from it is
written. One that dies is replaced, and what was not confirmed is written again, with `again`: it may be there twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mep.monitor.audit_file import AuditError, AuditFile
from mep.processes import forked, reaping

log = logging.getLogger("mep.audit")

MOST_WAITING = 16 << 20
"""Bytes of lines that wait for a disk that hangs; what comes then is lost, and counted."""
SLOW = 5.0
"""Seconds for which lines wait before `mep status` says so."""
_RESTART_PAUSE = 1.0
_NAME = Path("/proc/self/comm")
"""What it is called in ps."""
_AT_ONCE = 1 << 18
_LINE = struct.Struct("!QBIL")
"""Before a line: its number, whether it is of a task, how many before it were not sent, its bytes."""
_ANSWER = struct.Struct("!QH")
"""Before a text: the number of the line, and the bytes of the text: why it was not written, if any."""
_NOTICE = 0
"""In place of a number: the text is for the log."""


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
        return _LINE.pack(number, self.of_task, self.missing, len(line)) + line


class AuditWriter:
    """The monitor's end. Belongs to the event loop.

    sync: decisions are confirmed when they are on the disk, and not only written. told: hears what became of each line,
    why it was not written or nothing.
    """

    def __init__(self, file: AuditFile, *, sync: bool, told: Callable[[str], None]) -> None:
        self._file = file
        self._sync = sync
        self._told = told
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
            pid, pidfd = forked.start(lambda: _serve(theirs, self._file, self._sync), keeping=theirs.fileno())
        self._ended = ended = loop.create_future()
        reaping.when_ended(pid, pidfd, lambda _code, _usage: ended.set_result(None))
        ours.setblocking(False)
        reader, self._stream = await asyncio.open_unix_connection(sock=ours)
        try:
            for number, waiting in self._waiting.items():
                self._stream.write(waiting.frame(number))
            while True:
                number, length = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
                text = (await reader.readexactly(length)).decode(errors="replace")
                if number == _NOTICE:
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


def _serve(connection: socket.socket, file: AuditFile, sync: bool) -> None:
    """The process: writes what comes until nobody is left to send anything."""
    _NAME.write_text("mep-audit")
    notices: list[str] = []
    file.tell = notices.append
    came = bytearray()
    while chunk := connection.recv(_AT_ONCE):
        came += chunk
        outcomes = _write(list(_lines(came)), file, sync)
        told = [(_NOTICE, text) for text in notices]
        notices.clear()
        with contextlib.suppress(OSError):  # the monitor is gone; what it has sent is written all the same
            connection.sendall(b"".join(_packed(*answer) for answer in [*told, *outcomes.items()]))


def _lines(came: bytearray) -> Iterator[tuple[int, bool, int, bytes]]:
    """Takes whole lines from what has come."""
    while len(came) >= _LINE.size:
        number, of_task, missing, size = _LINE.unpack_from(came)
        if len(came) < _LINE.size + size:
            return
        yield number, bool(of_task), missing, bytes(came[_LINE.size : _LINE.size + size])
        del came[: _LINE.size + size]


def _write(lines: list[tuple[int, bool, int, bytes]], file: AuditFile, sync: bool) -> dict[int, str]:
    """Writes lines, and waits once for the disk. Returns by number why each was not written, or nothing."""
    outcomes: dict[int, str] = {}
    for number, of_task, missing, line in lines:
        file.lost += missing
        try:
            file.write(line, of_task=of_task)
            outcomes[number] = ""
        except AuditError as e:
            outcomes[number] = str(e)
    if sync and any(not of_task for _, of_task, _, _ in lines):
        try:
            file.sync(sum(not why for why in outcomes.values()))
        except AuditError as e:
            return {number: why or str(e) for number, why in outcomes.items()}
    return outcomes


def _packed(number: int, text: str) -> bytes:
    said = text.encode(errors="replace")[:4000]
    return _ANSWER.pack(number, len(said)) + said
