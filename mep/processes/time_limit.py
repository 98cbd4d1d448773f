"""Waits with a time limit, and ends when it is cancelled: `asyncio.wait_for` does both from Python 3.12 on only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Returns what `work` returns, or raises what it raises. When it is not waited for any more, it is cancelled.

    Before Python 3.12 `wait_for` forgets that its caller was cancelled when `work` ends in the same moment: whoever
    waits for the caller's end waits for ever. Here the cancellation counts, and the result is lost.

    Raises:
        asyncio.TimeoutError: it took longer than so many seconds; it has ended by the cancellation.
    """
    task = asyncio.ensure_future(work)
    in_time: set[asyncio.Future[T]] = set()
    try:
        in_time, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    try:
        if not in_time and task.cancelled():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        del task, in_time, work  # what is raised refers to this frame: whatever that holds would stay open
