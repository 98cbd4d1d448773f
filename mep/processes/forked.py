"""Does in a forked child what may wait for a disk, and returns what came out: `await run(lambda: read(path))`.

A profile may lie on a network file system that hangs; the event loop must not, and a process that forks has no
threads. The child is a copy of this process, with its rights: only for files that root trusts, never for what strangers
wrote. It closes every descriptor but the pipe of its answer, and ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
from collections.abc import Callable
from typing import NoReturn, TypeVar

from mep.privileged import kernel
from mep.processes import reaping

T = TypeVar("T")


class ChildLost(OSError):
    """The child ended without an answer."""


async def run(work: Callable[[], T]) -> T:
    """What `work` returns, or raises; both must be plain values (pickle). The child is killed when this is cancelled.

    Raises:
        ChildLost: the child was killed, or its answer cannot be read.
        OSError: no process or descriptor to be had.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _child(work, writing, parent)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    pidfd = os.pidfd_open(pid)
    try:
        answer = await _read(reading)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        raise
    finally:
        os.close(reading)
        reaping.forget(pid, pidfd)
    return _opened(answer)


def _opened(answer: bytes) -> T:  # type: ignore[type-var] # what was put in comes out
    try:
        value, error = pickle.loads(answer)  # noqa: S301 - of our own child, which reads only what root trusts
    except (EOFError, pickle.UnpicklingError):
        raise ChildLost("the process that was to read it ended without an answer") from None
    if error is not None:
        raise error
    result: T = value
    return result


async def _read(descriptor: int) -> bytes:
    """All that comes until its end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    data = bytearray()

    def take() -> None:
        chunk = os.read(descriptor, 2**16)
        data.extend(chunk)
        if not chunk and not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, take)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
    return bytes(data)


def _child(work: Callable[[], T], writing: int, parent: int) -> NoReturn:
    """Never returns into the caller's code."""
    try:
        gc.freeze()  # what is shared with the parent stays shared
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        kernel.end_with_parent()
        if os.getppid() == parent:
            os.set_blocking(writing, True)
            os.closerange(3, writing)
            os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(_answer(work))
    finally:
        os._exit(0)


def _answer(work: Callable[[], T]) -> bytes:
    try:
        return pickle.dumps((work(), None))
    except Exception as e:  # noqa: BLE001 - whatever it was, the parent raises it
        return pickle.dumps((None, e))
