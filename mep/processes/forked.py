"""Does in a forked child what may wait for a disk, and returns what came out: `await run(lambda: read(path))`.

A profile may lie on a network file system that hangs; the event loop must not, and a process that forks has no
threads. The child is a copy of this process, with its rights: only for files that root trusts, never for what strangers
wrote. It keeps standard input, output and error and the pipe of its answer, and ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from mep.privileged import kernel
from mep.processes import reaping, time_limit
from mep.processes.pidfd import send_signal

T = TypeVar("T")

END_TIMEOUT = 5.0
"""Seconds that a child has to be gone once it has answered; after that it is reaped whenever it ends."""


class ChildLost(OSError):
    """The child ended without an answer, or did not end in time."""


class GivenUp(ChildLost):
    """The child did not answer in time, and was killed. `ended` is done once it is gone: a file system that hangs may
    hold it until it answers again, and whoever tries anew meanwhile leaves another one there."""

    def __init__(self, text: str, ended: asyncio.Future[None]) -> None:
        super().__init__(text)
        self.ended = ended


async def run(work: Callable[[], T], within: float | None = None) -> T:
    """What `work` returns, or raises; both must be plain values (pickle). The child is killed when this is cancelled.

    within: seconds after which it is given up. A child that hangs in a file system ends when that answers again; nobody
    waits for it here.

    Raises:
        GivenUp: the child took too long.
        ChildLost: the child was killed, or its answer cannot be read.
        OSError: no process or descriptor to be had.
    """
    with _fork(work) as (pid, pidfd, reading):
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reaping.when_ended(pid, pidfd, lambda _code, _usage: ended.set_result(None))
        try:
            answer = await time_limit.within(within, _read(reading))
        except asyncio.TimeoutError:
            raise GivenUp(f"the process that was to do it did not end within {within:g} s", ended) from None
        finally:
            if not ended.done():
                send_signal(pidfd, signal.SIGKILL)  # it has nothing to say any more
    await asyncio.wait({ended}, timeout=END_TIMEOUT)
    result: T = _opened(answer)
    return result


def start(work: Callable[[], None], keeping: int) -> tuple[int, int]:
    """A child that does the work, however long that takes: its pid, and its pidfd. It outlives its parent.

    keeping: the one descriptor that it has besides standard input, output and error. Raises OSError.
    """
    pid = _begin(lambda: _lasting(work, keeping))
    return pid, _pidfd(pid)


def _begin(child: Callable[[], NoReturn]) -> int:
    # A signal that comes before the child has reset its handlers must not be taken for one to the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            child()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # no descriptor to be had: nobody could ever reap this child
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


@contextlib.contextmanager
def _fork(work: Callable[[], object]) -> Iterator[tuple[int, int, int]]:
    """A child that does the work: its pid, its pidfd, and the end of a pipe that its answer comes through."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(reading, False)
        parent = os.getpid()
        try:
            pid = _begin(lambda: _child(work, writing, parent))
        finally:
            os.close(writing)
        yield pid, _pidfd(pid), reading
    finally:
        os.close(reading)


async def _read(descriptor: int) -> bytes:
    """All that comes until its end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    data = bytearray()

    def take() -> None:
        chunk = os.read(descriptor, 2**16)
        data.extend(chunk)
        if not chunk:
            loop.remove_reader(descriptor)
            if not ended.done():  # whoever waited may have been cancelled
                ended.set_result(None)

    loop.add_reader(descriptor, take)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
    return bytes(data)


def _opened(answer: bytes) -> Any:
    try:
        value, error = pickle.loads(answer)  # noqa: S301 - of our own child, which reads only what root trusts
    except Exception:  # noqa: BLE001 - half of a pickle can raise anything
        raise ChildLost("the process that was to do it ended without an answer") from None
    if error is not None:
        raise error
    return value


def _child(work: Callable[[], object], writing: int, parent: int) -> NoReturn:
    """Never returns into the caller's code."""
    try:
        kernel.end_with_parent()
        if os.getppid() == parent:
            _let_go(writing)
            _write(writing, _answer(work))
    finally:
        os._exit(0)


def _lasting(work: Callable[[], None], keeping: int) -> NoReturn:
    """Never returns into the caller's code. Whoever ends the parent from a terminal, or as a group, does not end it."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        _let_go(keeping)
        work()
    finally:
        os._exit(0)


def _let_go(writing: int) -> None:
    """Lets go of what is the parent's: signals, descriptors, memory that is shared until it is written to."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    gc.freeze()
    os.closerange(3, writing)
    kernel.close_from(max(3, writing + 1))


def _answer(work: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((work(), None))
    except Exception as e:  # noqa: BLE001 - whatever it was, the parent raises it
        return _error(e)


def _error(error: Exception) -> bytes:
    """The error, or its text when it is one that does not come out as it was put in."""
    try:
        data = pickle.dumps((None, error))
        pickle.loads(data)  # noqa: S301 - made in the line above
    except Exception:  # noqa: BLE001 - whatever its class does when it is made anew
        return pickle.dumps((None, ChildLost(f"{type(error).__name__}: {error}")))
    return data


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
