"""Bounds the endpoint's log, whoever writes to it: the endpoint, what tasks print, what they start.

Descriptors 1 and 2 become a pipe, and a small process, the log's keeper, writes what comes out of it. When the file is
as large as `Bounds` says it becomes `endpoint.log.1`, the one before `endpoint.log.2`, as many as are kept, and a new
one begins: whatever is printed, there are never more bytes than that. Lines that a full disk does not take are left
out.

A process, and no thread: a task's library may print while it holds the interpreter, and a crash must not take the last
words with it. The keeper ends when nobody is left who could write.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 16
_FLUSH = 2.0
"""Seconds to wait for the keeper at the end of the endpoint."""

_WRITE_ALL = b"?"
"""Asks the keeper to write all that there is; it answers with the same."""
_BOUNDS = struct.Struct("!QQ")
"""Tells the keeper size and number from now on."""

_keeper: socket.socket | None = None
"""To the keeper. One for a process, as its log."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """size: bytes of the log, and of each one before. keep: how many of these there are."""

    size: int = 4 << 20
    keep: int = 1


def bound(name: str, bounds: Bounds = Bounds()) -> None:
    """Bounds the file that descriptors 1 and 2 are. One that is no file, or that no process can be had for, stays."""
    global _keeper
    log = os.fstat(1)
    if not stat.S_ISREG(log.st_mode):
        return
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        path = Path("/proc/self/fd/1").readlink()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened.callback(its.close)
        reading, writing = os.pipe()
        opened.callback(os.close, reading)
        opened.callback(os.close, writing)
        _fork_twice(name, _Log(path, bounds), reading, its)
        if os.path.samestat(log, os.fstat(2)):
            os.dup2(writing, 2)
        os.dup2(writing, 1)
        ours.settimeout(_FLUSH)
        _keeper = ours


def bound_to(bounds: Bounds) -> None:
    """Gives the log other bounds from now on."""
    if _keeper is not None:
        with contextlib.suppress(OSError):
            _keeper.send(_BOUNDS.pack(bounds.size, bounds.keep))


def flush() -> None:
    """Waits until all that has been written to 1 and 2 is in the file, a while at most."""
    if _keeper is not None:
        with contextlib.suppress(OSError):
            _keeper.send(_WRITE_ALL)
            _keeper.recv(1)


class _Log:
    """The file in the keeper, where it is descriptor 1. It stays open when somebody moves or removes it."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self.bounds = bounds
        self._path = path

    def write(self, chunk: bytes) -> None:
        """Writes it, to a new file where this one is full; leaves out what the disk does not take."""
        with contextlib.suppress(OSError):
            if os.fstat(1).st_size + len(chunk) > self.bounds.size:
                self._begin_anew()
            while chunk:
                chunk = chunk[os.write(1, chunk) :]

    def _begin_anew(self) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(1), self._path.stat()):  # else somebody has moved or removed it already
                    self._move()
            new = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:  # there can be no other file
            os.ftruncate(1, 0)
            return
        os.dup2(new, 1)
        os.dup2(new, 2)
        os.close(new)

    def _move(self) -> None:
        if not self.bounds.keep:
            self._path.unlink()
            return
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self.bounds.keep + 1))]
        for newer, older in reversed([*itertools.pairwise(names)]):
            with contextlib.suppress(FileNotFoundError):
                newer.rename(older)


def _fork_twice(name: str, log: _Log, reading: int, control: socket.socket) -> None:
    """The keeper is nobody's child, and in a session of its own: who looks after the endpoint's children, or signals
    its group, does not mean it. Raises OSError."""
    between = os.fork()
    if between == 0:
        code = os.EX_OSERR
        with contextlib.suppress(BaseException):
            os.setsid()
            if os.fork() == 0:
                _keep(name, log, reading, control)
            code = os.EX_OK
        os._exit(code)
    if os.waitpid(between, 0)[1] != 0:
        raise BlockingIOError("there may be no other process")


def _keep(name: str, log: _Log, reading: int, control: socket.socket) -> None:
    """Writes to the log what comes from the pipe, until nobody is left who could write."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    wanted = {1, 2, reading, control.fileno()}
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor not in wanted:
            with contextlib.suppress(OSError):  # the one that the list was read with
                os.close(descriptor)
    with contextlib.suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle(f"mep-log {name}")
    os.set_blocking(reading, False)
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(control, select.POLLIN)
    while True:
        asked = control.fileno() in dict(poll.poll())
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(reading, _CHUNK):
                log.write(chunk)
            return
        if asked:
            _answer(log, control, poll)


def _answer(log: _Log, control: socket.socket, poll: select.poll) -> None:
    with contextlib.suppress(OSError):
        asked = control.recv(_BOUNDS.size)
        if asked == _WRITE_ALL:
            control.send(asked)
            return
        if asked:
            log.bounds = Bounds(*_BOUNDS.unpack(asked))
            return
    poll.unregister(control)  # the endpoint has gone; what it has started may still write
