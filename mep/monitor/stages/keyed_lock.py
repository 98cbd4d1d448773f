"""A lock for each user endpoint's name: one request holds it, and at most one waits. `pipeline` holds it for a start.

Two start commands in a row must not start a user endpoint twice. Of several that wait for the same one only the newest
matters, as it has the newest credentials; the others are superseded, so that nobody can take all places for requests
with commands that wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class KeyedLock:
    """The locks of all keys. Belongs to the event loop; remembers nothing about a key that nobody holds."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[bool] | None] = {}
        """A key that is held has an entry; its value is who waits."""

    @contextlib.asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[bool]:
        """Waits for the lock and holds it within the block: True. False, at once, when superseded by a later caller."""
        held = await self._acquire(key)
        try:
            yield held
        finally:
            if held:
                self._release(key)

    async def _acquire(self, key: str) -> bool:
        if key not in self._waiting:
            self._waiting[key] = None
            return True
        earlier = self._waiting[key]
        if earlier is not None and not earlier.done():
            earlier.set_result(False)
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[key] = place
        try:
            return await place
        except asyncio.CancelledError:
            if self._waiting.get(key) is place:
                self._waiting[key] = None
            elif place.done() and not place.cancelled() and place.result():
                self._release(key)  # the lock had just been passed on to this caller
            raise

    def _release(self, key: str) -> None:
        waiting = self._waiting[key]
        if waiting is None or waiting.done():
            del self._waiting[key]
        else:
            self._waiting[key] = None
            waiting.set_result(True)
