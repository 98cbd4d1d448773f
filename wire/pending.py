"""What a connection waits for: futures that end with the broker's answer, or all together when it is lost."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from wire.errors import BrokerError, ConnectionLost

T = TypeVar("T")


class PendingAnswers:
    """The futures of one connection. `lost` is set once the connection is gone; `reason` says why it went."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.reason: BrokerError = ConnectionLost("connection closed")
        self._futures: set[asyncio.Future[Any]] = set()

    def future(self) -> asyncio.Future[Any]:
        """Makes a future that fails when the connection is lost, also when nobody awaits it any more."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        future.add_done_callback(_retrieve)
        return future

    def lose(self, reason: BrokerError) -> None:
        """Fails all that wait. Only the first reason counts: what is said later follows from it."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()
        for future in list(self._futures):
            fail(future, self.reason)


def succeed(future: asyncio.Future[T], value: T) -> None:
    """Ends `future` with `value`, unless it has ended."""
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Ends `future` with `error`, unless it has ended."""
    if not future.done():
        future.set_exception(error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Marks the exception as seen, so that asyncio does not complain in the log of one that nobody retrieved."""
    if not future.cancelled():
        future.exception()
