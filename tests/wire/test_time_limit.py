"""Waiting with a time limit: results, errors, the end of time, and a cancellation that always counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import mep.processes.time_limit
import wire.time_limit

Within = Callable[[float | None, Awaitable[Any]], Awaitable[Any]]


@pytest.fixture(params=[mep.processes.time_limit, wire.time_limit], ids=lambda module: module.__name__)
def within(request: pytest.FixtureRequest) -> Within:
    return request.param.within


async def fails() -> None:
    raise OSError("disk")


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_a_result_and_an_error_are_passed_on(within: Within, seconds: float | None) -> None:
    assert asyncio.run(_await(within(seconds, asyncio.sleep(0, "done")))) == "done"
    with pytest.raises(OSError, match="disk"):
        asyncio.run(_await(within(seconds, fails())))


def test_what_takes_too_long_has_ended(within: Within) -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(_await(within(0.01, slow())))
    assert ended


def test_the_cancellation_of_the_work_is_not_the_end_of_its_time(within: Within) -> None:
    async def scenario() -> None:
        work = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(work.cancel)
        await within(60, work)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


@pytest.mark.parametrize("outcome", ["result", "error", "none"])
def test_a_cancellation_counts_also_in_the_moment_of_the_result(within: Within, outcome: str) -> None:
    async def scenario() -> None:
        work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(within(60, work))
        await asyncio.sleep(0)
        if outcome == "result":
            work.set_result(1)
        elif outcome == "error":
            work.set_exception(OSError("disk"))
            work.exception()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert work.done()

    asyncio.run(scenario())


async def _await(work: Awaitable[Any]) -> Any:
    return await work
