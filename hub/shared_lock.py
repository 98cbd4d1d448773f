"""Many share a key at a time, or one has it alone: submissions to a user endpoint, and the failure of all its tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class SharedLock:
    """The locks of all keys. Belongs to the event loop; remembers nothing about a key that nobody holds.

    Whoever waits to be alone goes first: those who come to share wait until that is over.
    """

    def __init__(self) -> None:
        self._sharers: Counter[str] = Counter()
        self._alone: set[str] = set()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def share(self, key: str) -> AsyncIterator[None]:
        """Holds `key` together with others within the block."""
        async with self._changed:
            await self._changed.wait_for(lambda: key not in self._alone)
            self._sharers[key] += 1
        try:
            yield
        finally:
            self._sharers[key] -= 1
            if not self._sharers[key]:
                del self._sharers[key]
                await self._tell()

    @contextlib.asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Holds `key` within the block, while nobody else does."""
        async with self._changed:
            await self._changed.wait_for(lambda: key not in self._alone)
            self._alone.add(key)
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: key not in self._sharers)
            yield
        finally:
            self._alone.discard(key)
            await self._tell()

    def close(self) -> None:
        """Lets go of what is held outside of this process: nothing."""

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
