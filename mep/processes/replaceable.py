"""A helper of which there is one at a time: started when it is needed, and anew when it has been lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from mep.processes.helper import HelperUnavailable


class Lost(Exception):
    """The helper that was asked has ended, or had to be ended. The text says why."""


class Stopped(HelperUnavailable):
    """There will be no helper any more."""


class Client(Protocol):
    """One helper as it is seen from here. lost: why it is of no use any more."""

    lost: str | None

    async def end(self) -> None:
        """Ends it, and waits until it is gone."""


C = TypeVar("C", bound=Client)
A = TypeVar("A")


class Replaceable(Generic[C]):
    """Keeps one. start: starts another one; may raise HelperUnavailable."""

    def __init__(self, start: Callable[[], Awaitable[C]]) -> None:
        self._start = start
        self._starting = asyncio.Lock()
        self._stopped = False
        self.current: C | None = None

    async def ask(self, question: Callable[[C], Awaitable[A]]) -> A:
        """The answer to a question, which is asked once more when the helper is lost over it: what it died of may have
        been another one.

        Raises:
            Lost: that happened twice.
            Stopped: `stop` has been called.
            HelperUnavailable: none can be started.
        """
        try:
            return await question(await self.running())
        except Lost:
            return await question(await self.running())

    async def running(self) -> C:
        """The one that runs. Raises Stopped, HelperUnavailable."""
        async with self._starting:
            if self._stopped:
                raise Stopped("the manager is being stopped")
            if self.current is None or self.current.lost is not None:
                self.current = await self._start()
            return self.current

    async def end(self) -> None:
        """Ends the one that runs; the next question starts another one."""
        async with self._starting:
            helper, self.current = self.current, None
        if helper is not None:
            await helper.end()

    async def stop(self) -> None:
        """Ends it for good."""
        self._stopped = True
        await self.end()
