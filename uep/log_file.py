"""Bounds the endpoint's log, whoever writes to it: the endpoint, what tasks print, what they start.

Descriptors 1 and 2 become a pipe, and a small process, the log's keeper, writes what comes out of it. When the file has
LARGEST bytes it becomes `endpoint.log.1`, in place of the one before, and a new one begins: whatever is printed, there
are never more than twice as many bytes. Lines that a full disk does not take are left out.

A process, and no thread: a task's library may print while it holds the interpreter, and a crash must not take the last
words with it. The keeper ends when nobody is left who could write.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
from pathlib import Path

LARGEST = 4 << 20
"""Bytes of the log, and of the one before."""
OLD = ".1"
_CHUNK = 1 << 16
_FLUSH = 2.0
"""Seconds to wait for the keeper at the end of the endpoint."""

_keeper: socket.socket | None = None
"""To the keeper: a byte asks it to write all that there is, and it answers with one. One for a process, as its log."""


def bound(name: str) -> None:
    """Bounds the file that descriptors 1 and 2 are. One that is no file, or that no process can be had for, stays."""
    global _keeper
    log = os.fstat(1)
    if not stat.S_ISREG(log.st_mode):
        return
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        path = Path("/proc/self/fd/1").readlink()
        ours, its = socket.socketpair()
        opened.callback(its.close)
        reading, writing = os.pipe()
        opened.callback(os.close, reading)
        opened.callback(os.close, writing)
        _fork_twice(name, path, reading, its)
        if os.path.samestat(log, os.fstat(2)):
            os.dup2(writing, 2)
        os.dup2(writing, 1)
        ours.settimeout(_FLUSH)
        _keeper = ours


def flush() -> None:
    """Waits until all that has been written to 1 and 2 is in the file, a while at most."""
    if _keeper is not None:
        with contextlib.suppress(OSError):
            _keeper.send(b"?")
            _keeper.recv(1)


def _fork_twice(name: str, path: Path, reading: int, control: socket.socket) -> None:
    """The keeper is nobody's child, and in a session of its own: who looks after the endpoint's children, or signals
    its group, does not mean it. Raises OSError."""
    between = os.fork()
    if between == 0:
        code = os.EX_OSERR
        with contextlib.suppress(BaseException):
            os.setsid()
            if os.fork() == 0:
                _keep(name, path, reading, control)
            code = os.EX_OK
        os._exit(code)
    if os.waitpid(between, 0)[1] != 0:
        raise BlockingIOError("there may be no other process")


def _keep(name: str, path: Path, reading: int, control: socket.socket) -> None:
    """Writes to descriptor 1, which is the file."""
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
                _write(chunk, path)
            return  # the end: nobody is left who could write
        if asked:
            _answer(control, poll)


def _answer(control: socket.socket, poll: select.poll) -> None:
    with contextlib.suppress(OSError):
        if control.recv(1):
            control.send(b"!")
            return
    poll.unregister(control)  # the endpoint has gone; what it has started may still write


def _write(chunk: bytes, path: Path) -> None:
    with contextlib.suppress(OSError):
        if os.fstat(1).st_size + len(chunk) > LARGEST:
            _begin_anew(path)
        while chunk:
            chunk = chunk[os.write(1, chunk) :]


def _begin_anew(path: Path) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(1), path.stat()):  # else somebody has moved or removed it already
                path.rename(f"{path}{OLD}")
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # there can be no other file
        os.ftruncate(1, 0)
        return
    os.dup2(new, 1)
    os.dup2(new, 2)
    os.close(new)
