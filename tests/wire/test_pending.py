"""Whatever waits for the broker ends: with an answer, or with the first reason for which the connection was lost."""

from __future__ import annotations

import asyncio
import gc

import pytest

from wire.errors import ConnectionLost
from wire.pending import PendingAnswers, fail, succeed


def test_all_that_wait_fail_with_the_first_reason() -> None:
    async def scenario() -> None:
        pending = PendingAnswers()
        answered, *waiting = [pending.future() for _ in range(3)]
        succeed(answered, 1)
        pending.lose(ConnectionLost("first"))
        later = pending.future()
        pending.lose(ConnectionLost("second"))
        assert await answered == 1
        for future in (*waiting, later):
            with pytest.raises(ConnectionLost, match="first"):
                await future
        assert pending.lost.is_set()
        assert str(pending.reason) == "first"

    asyncio.run(scenario())


def test_an_answer_that_comes_too_late_is_none() -> None:
    async def scenario() -> None:
        future = PendingAnswers().future()
        fail(future, ConnectionLost("lost"))
        succeed(future, 1)
        fail(future, ConnectionLost("again"))
        with pytest.raises(ConnectionLost, match="lost"):
            await future

    asyncio.run(scenario())


def test_who_no_longer_waits_is_not_complained_about(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        pending = PendingAnswers()
        pending.future().cancel()
        pending.future()
        pending.lose(ConnectionLost("lost"))
        await asyncio.sleep(0)

    asyncio.run(scenario())
    gc.collect()
    assert caplog.messages == []
