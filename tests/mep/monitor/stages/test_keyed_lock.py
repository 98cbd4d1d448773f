"""Who holds the lock of a key, who waits for it, and who need not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mep.monitor.stages.keyed_lock import KeyedLock


class Request:
    """Holds the lock until it is told to go on."""

    def __init__(self, lock: KeyedLock, key: str, fails: bool = False) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.held: bool | None = None
        self.task = asyncio.ensure_future(self._run(lock, key, fails))

    async def _run(self, lock: KeyedLock, key: str, fails: bool) -> None:
        async with lock.hold(key) as held:
            self.held = held
            if held:
                self.begun.set()
                await self.go_on.wait()
            if fails:
                raise ValueError(key)

    async def end(self) -> None:
        self.go_on.set()
        await self.task


def run(story: Callable[[KeyedLock], Awaitable[None]]) -> None:
    async def told() -> None:
        lock = KeyedLock()
        await asyncio.wait_for(story(lock), 20)
        assert lock._waiting == {}, "something is remembered that is over"

    asyncio.run(told())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_at_a_time_and_others_at_once() -> None:
    async def story(lock: KeyedLock) -> None:
        first, other = Request(lock, "a"), Request(lock, "b")
        second = Request(lock, "a")
        await settle()
        assert first.begun.is_set() and other.begun.is_set() and not second.begun.is_set()
        await first.end()
        await second.begun.wait()
        await second.end()
        await other.end()

    run(story)


def test_of_those_that_wait_only_the_newest_gets_the_lock() -> None:
    async def story(lock: KeyedLock) -> None:
        first = Request(lock, "a")
        waiting = [Request(lock, "a") for _ in range(10)]
        await settle()
        assert [request.held for request in waiting] == [False] * 9 + [None]
        assert all(request.task.done() for request in waiting[:-1]), "they hold no place"
        await first.end()
        await waiting[-1].begun.wait()
        await waiting[-1].end()

    run(story)


def test_a_holder_that_fails_passes_it_on() -> None:
    async def story(lock: KeyedLock) -> None:
        first, second = Request(lock, "a", fails=True), Request(lock, "a")
        await settle()
        with pytest.raises(ValueError, match="a"):
            await first.end()
        await second.begun.wait()
        await second.end()

    run(story)


@pytest.mark.parametrize("who", ["holder", "waiting", "just chosen"])
def test_who_is_cancelled_is_in_nobodys_way(who: str) -> None:
    async def story(lock: KeyedLock) -> None:
        first, second = Request(lock, "a"), Request(lock, "a")
        await settle()
        if who == "just chosen":
            first.go_on.set()
            while not first.task.done():
                await asyncio.sleep(0)
        cancelled = first if who == "holder" else second
        cancelled.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled.task
        if who == "holder":
            await second.end()
        third = Request(lock, "a")
        await first.task if who == "just chosen" else first.go_on.set()
        await third.begun.wait() if who != "holder" else await settle()
        await third.end()
        await asyncio.gather(first.task, return_exceptions=True)

    run(story)
