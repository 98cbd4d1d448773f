"""Who has a turn, who waits, and who need not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mep.monitor.requests.keyed_lock import Turns


class Request:
    """Takes a turn and keeps it until it is told to go on."""

    def __init__(self, turns: Turns, name: str, fails: bool = False) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.had_a_turn: bool | None = None
        self.task = asyncio.ensure_future(self._run(turns, name, fails))

    async def _run(self, turns: Turns, name: str, fails: bool) -> None:
        async with turns.take(name) as mine:
            self.had_a_turn = mine
            if mine:
                self.begun.set()
                await self.go_on.wait()
            if fails:
                raise ValueError(name)

    async def end(self) -> None:
        self.go_on.set()
        await self.task


def run(story: Callable[[Turns], Awaitable[None]]) -> None:
    async def told() -> None:
        turns = Turns()
        await asyncio.wait_for(story(turns), 20)
        assert turns._waiting == {}, "something is remembered that is over"

    asyncio.run(told())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_at_a_time_and_others_at_once() -> None:
    async def story(turns: Turns) -> None:
        first, other = Request(turns, "a"), Request(turns, "b")
        second = Request(turns, "a")
        await settle()
        assert first.begun.is_set() and other.begun.is_set() and not second.begun.is_set()
        await first.end()
        await second.begun.wait()
        await second.end()
        await other.end()

    run(story)


def test_of_those_that_wait_only_the_newest_gets_a_turn() -> None:
    async def story(turns: Turns) -> None:
        first = Request(turns, "a")
        waiting = [Request(turns, "a") for _ in range(10)]
        await settle()
        assert [request.had_a_turn for request in waiting] == [False] * 9 + [None]
        assert all(request.task.done() for request in waiting[:-1]), "they hold no place"
        await first.end()
        await waiting[-1].begun.wait()
        await waiting[-1].end()

    run(story)


def test_a_turn_that_fails_is_passed_on() -> None:
    async def story(turns: Turns) -> None:
        first, second = Request(turns, "a", fails=True), Request(turns, "a")
        await settle()
        with pytest.raises(ValueError, match="a"):
            await first.end()
        await second.begun.wait()
        await second.end()

    run(story)


@pytest.mark.parametrize("who", ["holder", "waiting", "just chosen"])
def test_who_is_cancelled_is_in_nobodys_way(who: str) -> None:
    async def story(turns: Turns) -> None:
        first, second = Request(turns, "a"), Request(turns, "a")
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
        third = Request(turns, "a")
        await first.task if who == "just chosen" else first.go_on.set()
        await third.begun.wait() if who != "holder" else await settle()
        await third.end()
        await asyncio.gather(first.task, return_exceptions=True)

    run(story)
