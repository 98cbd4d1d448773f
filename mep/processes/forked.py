"""Does in a forked child what may wait for a disk, and returns what came out: `await run(lambda: read(path))`.

A profile may lie on a network file system that hangs; the event loop must not, and a process that forks has no
threads. The child is a copy of this process, with its rights: only for files that root trusts, never for what strangers
wrote. It keeps standard input, output and error and the pipe of its answer, and ends with its parent.

What talks to strangers goes to `ask`: its child becomes an account without rights first, and answers with bytes, which
are read as a stranger's. Nobody of that account can look into it: it was forked, not executed, and cannot be traced.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from mep.privileged import kernel
from mep.privileged.become import become, take_login_uid
from mep.privileged.memory_file import fill
from mep.processes import reaping, time_limit
from mep.processes.pidfd import send_signal
from mep.request.account import Account

T = TypeVar("T")

NOBODY = 65534
"""The uid and gid of `nobody` (and of what the kernel cannot name), which own nothing."""
END_TIMEOUT = 5.0
"""Seconds that a child has to be gone once it has answered; after that it is reaped whenever it ends."""


Begin = Callable[[int], int]
"""Begins a child that writes its answer to that descriptor; its pid."""
_NO_ANSWER = "the process that was to do it ended without an answer"


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
    result: T = opened(await answer_of(_forking(lambda: pickled(work)), within))
    return result


async def ask(work: Callable[[], bytes], account: Account | None, within: float, most: int) -> bytes:
    """What `work` returns, done as the account and nothing more; None is for ourselves. As `run` otherwise.

    most: bytes of an answer; the rest of one that is longer is not read.

    Raises:
        GivenUp: the child took too long.
        ChildLost: the child ended without an answer, or could not become the account.
        OSError: no process or descriptor to be had.
    """
    answer = work if account is None else _as(account.uid, account.gid, work)
    return _some(await answer_of(_forking(answer), within, most))


def ask_and_wait(work: Callable[[], bytes], within: float, most: int) -> bytes:
    """As `ask`, where there is no event loop; as nobody in particular (NOBODY), when we are root.

    Raises:
        ChildLost: the child ended without an answer, took too long, or could not give up its rights.
        OSError: no process or descriptor to be had.
    """
    answer = _as(NOBODY, NOBODY, work)
    said, until = bytearray(), time.monotonic() + within
    with _answering(_forking(answer)) as (pid, pidfd, reading):
        try:
            while len(said) < most:
                readable, _, _ = select.select([reading], [], [], max(0, until - time.monotonic()))
                if not readable:
                    raise ChildLost(f"the process that was to do it did not end within {within:g} s")
                if not (chunk := os.read(reading, 2**16)):
                    break
                said += chunk
        finally:
            send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            os.waitpid(pid, 0)
    return _some(bytes(said[:most]))


async def answer_of(begin: Begin, within: float | None, most: int | None = None) -> bytes:
    """The bytes that a child answers with; none when it died. Raises GivenUp, OSError."""
    with _answering(begin) as (pid, pidfd, reading):
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reaping.when_ended(pid, pidfd, lambda _code, _usage: ended.set_result(None))
        try:
            said = await time_limit.within(within, _read(reading, most))
        except asyncio.TimeoutError:
            raise GivenUp(f"the process that was to do it did not end within {within:g} s", ended) from None
        finally:
            if not ended.done():
                send_signal(pidfd, signal.SIGKILL)  # it has nothing to say any more
    await asyncio.wait({ended}, timeout=END_TIMEOUT)
    return said


def _as(uid: int, gid: int, work: Callable[[], bytes]) -> Callable[[], bytes]:
    """The work, done as an account without rights; as ourselves, where we are not root."""
    if not kernel.is_root():
        return work
    last_capability = kernel.last_capability()

    def answer() -> bytes:
        take_login_uid(uid, required=False)
        become(uid, gid, (gid,), last_capability, login_uid=kernel.login_uid())
        return work()

    return answer


def _some(said: bytes) -> bytes:
    """What a child has said. Raises ChildLost: it has died and said nothing."""
    if not said:
        raise ChildLost(_NO_ANSWER)
    return said


def _begin(child: Callable[[], NoReturn]) -> int:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, kernel.HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            child()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def pidfd_of(pid: int) -> int:
    """A pidfd of a child of ours, which is killed when there is none to be had. Raises OSError."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # no descriptor to be had: nobody could ever reap this child
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _forking(answer: Callable[[], bytes]) -> Begin:
    """Begins a fork of ours that makes the answer."""
    parent = os.getpid()
    return lambda writing: _begin(lambda: _child(answer, writing, parent))


@contextlib.contextmanager
def _answering(begin: Begin) -> Iterator[tuple[int, int, int]]:
    """A child that makes the answer: its pid, its pidfd, and the end of a pipe that its answer comes through."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(reading, False)
        try:
            pid = begin(writing)
        finally:
            os.close(writing)
        yield pid, pidfd_of(pid), reading
    finally:
        os.close(reading)


async def _read(descriptor: int, most: int | None) -> bytes:
    """All that comes until its end, or as many bytes."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    data = bytearray()

    def take() -> None:
        chunk = os.read(descriptor, 2**16)
        data.extend(chunk)
        if not chunk or (most is not None and len(data) >= most):
            loop.remove_reader(descriptor)
            if not ended.done():  # whoever waited may have been cancelled
                ended.set_result(None)

    loop.add_reader(descriptor, take)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
    return bytes(data[:most])


def opened(answer: bytes) -> Any:
    """What `pickled` has put into the answer: returned, or raised. Raises ChildLost when it is none."""
    try:
        value, error = pickle.loads(answer)  # noqa: S301 - of our own child, which reads only what root trusts
    except Exception:  # noqa: BLE001 - half of a pickle can raise anything
        raise ChildLost(_NO_ANSWER) from None
    if error is not None:
        raise error
    return value


def _child(answer: Callable[[], bytes], writing: int, parent: int) -> NoReturn:
    """Never returns into the caller's code."""
    try:
        kernel.end_with_parent()
        if os.getppid() == parent:
            _let_go(writing)
            fill(writing, answer())
    finally:
        os._exit(0)


def _let_go(writing: int) -> None:
    """Lets go of what is the parent's: signals, descriptors, memory that is shared until it is written to."""
    signal.set_wakeup_fd(-1)
    for number in kernel.HANDLED:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    gc.freeze()
    os.closerange(3, writing)
    kernel.close_from(max(3, writing + 1))


def pickled(work: Callable[[], object]) -> bytes:
    """What the work returns, or raises, for `opened`."""
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
