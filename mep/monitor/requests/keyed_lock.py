"""One request at a time for each user endpoint, and one that waits. `pipeline` takes a turn before it starts anything.

Two start commands in a row must not start a user endpoint twice. Of several that wait for the same one only the newest
matters, as it has the newest credentials; the others are superseded, so that nobody can take all places for requests
with commands that wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """By name of the user endpoint. Belongs to the event loop; remembers nothing that is over."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[bool] | None] = {}
        """Whose turn it is has an entry; its value is who waits."""

    @contextlib.asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[bool]:
        """Within this it is the caller's turn; False, at once, when somebody came later and waits instead."""
        mine = await self._wait(name)
        try:
            yield mine
        finally:
            if mine:
                self._pass_on(name)

    async def _wait(self, name: str) -> bool:
        if name not in self._waiting:
            self._waiting[name] = None
            return True
        earlier = self._waiting[name]
        if earlier is not None and not earlier.done():
            earlier.set_result(False)
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[name] = place
        try:
            return await place
        except asyncio.CancelledError:
            if self._waiting.get(name) is place:
                self._waiting[name] = None
            elif place.done() and not place.cancelled() and place.result():
                self._pass_on(name)  # it had just become ours
            raise

    def _pass_on(self, name: str) -> None:
        waiting = self._waiting[name]
        if waiting is None or waiting.done():
            del self._waiting[name]
        else:
            self._waiting[name] = None
            waiting.set_result(True)
