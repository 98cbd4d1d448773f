"""Work in a forked child: what comes out, and what becomes of children that die, hang or are given up."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from lab.waiting import aiountil
from mep.processes import forked
from mep.processes.forked import ChildLost
from mep.processes.pidfd import has_ended
from mep.profile.errors import ConfigError, ConfigErrors
from tests.own_children import own_children

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _others() -> Iterator[None]:
    """Remembers the children that earlier tests have left to be reaped."""
    OTHERS.update(children())
    yield
    OTHERS.clear()


OTHERS: set[int] = set()


def children() -> set[int]:
    """Children of this process since the test began, those that wait to be reaped included."""
    return own_children() - OTHERS


async def nobody_is_left() -> None:
    """Returns once all children of this test have been reaped."""
    await aiountil(lambda: not children(), "the end of all children")


def run(work: Callable[[], T], within: float | None = None) -> T:
    """What comes out; afterwards no child and no descriptor is left."""
    return with_loop(lambda: forked.run(work, within))


def with_loop(work: Callable[[], Awaitable[T]]) -> T:
    async def both() -> T:
        before = open_descriptors()
        try:
            return await work()
        finally:
            await nobody_is_left()
            assert open_descriptors() == before

    return asyncio.run(both())


def open_descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


async def started(path: Path) -> int:
    """The process id that a child has written, once it is there."""
    await aiountil(lambda: path.exists() and path.read_text().endswith("\n"), "the child's number")
    return int(path.read_text())


def hang(path: Path) -> NoReturn:
    """Says who it is, and never ends by itself."""
    path.write_text(f"{os.getpid()}\n")
    while True:
        signal.pause()


@pytest.mark.parametrize("value", [None, 0, "text", b"\0", {"a": [1, (2.5, None)]}, Path("/x")])
def test_a_value_comes_out_as_it_is(value: object) -> None:
    assert run(lambda: value) == value


def test_the_work_is_done_in_another_process() -> None:
    seen: list[int] = []

    def work() -> int:
        seen.append(1)
        return os.getpid()

    assert run(work) != os.getpid()
    assert seen == []


def test_big_answers_come_whole() -> None:
    assert run(lambda: b"x" * (20 * 2**20)) == b"x" * (20 * 2**20)


def test_an_exception_is_raised_as_it_is() -> None:
    def missing() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No such file", "/there")

    with pytest.raises(FileNotFoundError) as caught:
        run(missing)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "/there")


@pytest.mark.parametrize(
    "error", [ConfigError(Path("/etc/mep/x/config.yaml"), ["wrong", "more"]), ConfigErrors(["one", "two"])]
)
def test_errors_of_a_profile_keep_their_text(error: ConfigError) -> None:
    def refused() -> NoReturn:
        raise error

    with pytest.raises(ConfigError) as caught:
        run(refused)
    assert str(caught.value) == str(error)


class NotMadeAnew(Exception):
    """Pickle takes it, and cannot make it anew."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_what_cannot_be_sent_is_told_by_its_text() -> None:
    def strange() -> NoReturn:
        raise NotMadeAnew("this", "that")

    def local() -> NoReturn:
        class Local(Exception):
            pass

        raise Local("from here")

    with pytest.raises(ChildLost, match="NotMadeAnew: this and that"):
        run(strange)
    with pytest.raises(ChildLost, match="Local: from here"):
        run(local)
    with pytest.raises((ChildLost, AttributeError, TypeError)):
        run(lambda: lambda: None)


@pytest.mark.parametrize("leave", [lambda: os._exit(0), lambda: os._exit(1), lambda: os.kill(os.getpid(), 9), exit])
def test_a_child_that_ends_without_an_answer_is_lost(leave: Callable[[], None]) -> None:
    with pytest.raises(ChildLost, match="without an answer"):
        run(leave)


def test_half_an_answer_is_none() -> None:
    def half() -> None:
        pipe = max(map(int, open_descriptors()))
        os.write(pipe, b"\x80\x04\x95\xff\xff")
        os._exit(0)

    with pytest.raises(ChildLost, match="without an answer"):
        run(half)


def test_a_child_that_hangs_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ChildLost, match=r"within 0\.2 s"):
        run(lambda: hang(tmp_path / "pid"), within=0.2)


def test_a_child_that_stands_still_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ChildLost, match="within"):
        run(lambda: os.kill(os.getpid(), signal.SIGSTOP), within=0.2)


def test_a_child_that_is_in_time_is_not() -> None:
    assert run(lambda: 1, within=30) == 1


def test_whoever_is_cancelled_kills_the_child(tmp_path: Path) -> None:
    async def work() -> int:
        task = asyncio.ensure_future(forked.run(lambda: hang(tmp_path / "pid")))
        pid = await started(tmp_path / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await nobody_is_left()
        return pid

    pid = with_loop(work)
    assert not Path(f"/proc/{pid}").exists()


def test_a_child_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    async def work() -> None:
        hanging = asyncio.ensure_future(forked.run(lambda: hang(tmp_path / "pid")))
        await started(tmp_path / "pid")
        assert await asyncio.gather(*(forked.run(lambda n=n: n * n) for n in range(10))) == [n * n for n in range(10)]
        assert not hanging.done()
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)

    with_loop(work)


def test_signals_are_the_childs_own(tmp_path: Path) -> None:
    """What is sent to the child ends the child, and is not taken for a signal to this process."""
    heard: list[int] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
            loop.add_signal_handler(number, heard.append, number)
            path = tmp_path / str(number)
            task = asyncio.ensure_future(forked.run(lambda path=path: hang(path)))
            os.kill(await started(path), number)
            with pytest.raises(ChildLost):
                await task
        os.kill(os.getpid(), signal.SIGHUP)
        await aiountil(lambda: heard, "the signal")

    with_loop(work)
    assert heard == [signal.SIGHUP]


def test_signals_during_the_fork_are_those_of_their_process() -> None:
    """Children are signalled from their first instruction on, by their process group, as a terminal does."""
    heard: list[int] = []

    async def work() -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, heard.append, signal.SIGUSR1)
        sent, ending = 0, threading.Event()

        def shoot() -> None:
            nonlocal sent
            while not ending.is_set():
                for pid in children():
                    try:
                        os.kill(pid, signal.SIGUSR1)
                    except ProcessLookupError:
                        continue
                    sent += 1

        shooter = threading.Thread(target=shoot)
        shooter.start()
        for _ in range(30):
            await asyncio.gather(forked.run(os.getpid), return_exceptions=True)
        ending.set()
        shooter.join()
        return sent

    assert with_loop(work) > 0
    assert heard == []


def test_the_signal_mask_is_as_before_here_and_empty_there() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        assert run(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])) == set()
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_the_child_has_no_descriptor_of_ours_but_the_standard_ones() -> None:
    reading, writing = os.pipe()
    found = run(open_descriptors)
    os.close(reading)
    os.close(writing)
    assert len(found - {"0", "1", "2"}) == 1, "the pipe of its answer"


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    parent = os.fork()
    if parent == 0:
        try:
            asyncio.run(forked.run(lambda: hang(tmp_path / "pid")))
        finally:
            os._exit(1)
    pid = asyncio.run(started(tmp_path / "pid"))
    pidfd = os.pidfd_open(pid)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert has_ended(pidfd, within=20)
    os.close(pidfd)


@contextlib.contextmanager
def free_descriptors(number: int) -> Iterator[None]:
    """So many, and no more, can be opened meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    top, held = max(map(int, open_descriptors())), [os.dup(0)]
    while held[-1] < top:  # a gap below
        held.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("number", [0, 1])
def test_without_descriptors_there_is_an_error_and_no_child(number: int) -> None:
    async def work() -> None:
        with free_descriptors(number), pytest.raises(OSError, match="Too many open files"):
            await forked.run(lambda: 1)
        assert children() == set()

    with_loop(work)


def test_two_descriptors_are_enough() -> None:
    async def work() -> int:
        with free_descriptors(2):
            return await forked.run(lambda: 1)

    assert with_loop(work) == 1


def test_descriptors_above_a_lowered_limit_are_closed() -> None:
    async def work() -> bool:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        high = os.dup2(0, min(900, before[1] - 1))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        try:
            return await forked.run(lambda: os.path.lexists(f"/proc/self/fd/{high}"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            os.close(high)

    assert with_loop(work) is False
