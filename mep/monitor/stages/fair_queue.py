"""Places for work that takes time, given in turn to those who ask: nobody is held up by somebody else's many requests.

`pipeline` has two: for finding out who a requester is, by requester, and for starting user endpoints, by account. Who
finds no place waits; the turn goes round among the keys, whatever number of requests each of them has. What waits holds
a command of the broker's window, which all share: so only MOST_WAITING of one key may.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable

MOST_WAITING = 250
"""Of one key. Each may have a newer command of its name behind it (`keyed_lock`): a quarter of what the broker sends
ahead (`worker.consumer.PREFETCH`), and more than twice of what one scientist asks for at a time."""


class WaitedTooLong(Exception):
    """No place was free in time."""


class TooManyWait(Exception):
    """So many of this key wait that no more may."""


class Place:
    """A place that is held, made by `FairQueue.place`."""

    def __init__(self, queue: FairQueue, key: Hashable) -> None:
        self._queue = queue
        self._key = key
        self._shared = True
        self._ended: asyncio.Future[None] | None = None

    def at_own_risk(self) -> None:
        """Gives the place to others; it goes on to count among those of its key. For work that only hurts its key."""
        if self._shared:
            self._shared = False
            self._queue._free += 1
            self._queue._give_on()

    def until(self, ended: asyncio.Future[None]) -> None:
        """Has it count among those of its key until `ended`, also when its block is over before."""
        self.at_own_risk()
        self._ended = ended

    def _leave(self) -> None:
        if self._ended is None or self._ended.done():
            self._queue._give_back(self._key, self._shared)
            return
        self._queue.lingering[self._key] += 1
        self._ended.add_done_callback(self._at_last)

    def _at_last(self, _ended: asyncio.Future[None]) -> None:
        self._queue.lingering[self._key] -= 1
        if not self._queue.lingering[self._key]:
            del self._queue.lingering[self._key]
        self._queue._give_back(self._key, self._shared)


class FairQueue:
    """Gives `places`, and of these at most `share` to one key. Belongs to the event loop; forgets keys without work."""

    def __init__(self, places: int, share: int) -> None:
        self._free = places
        self._share = share
        self._taken: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """Who waits, by key; the order of the keys is the order of their turns."""
        self.lingering: Counter[Hashable] = Counter()
        """The places, by key, whose blocks are over and that still count (`Place.until`)."""

    @contextlib.asynccontextmanager
    async def place(self, key: Hashable, deadline: float) -> AsyncIterator[Place]:
        """Waits for a place until `deadline`, a time of the loop's clock, and holds it within the block.

        Raises:
            TooManyWait: at once.
            WaitedTooLong: the deadline has passed.
        """
        await self._take(key, deadline)
        place = Place(self, key)
        try:
            yield place
        finally:
            place._leave()

    def taken(self, key: Hashable) -> int:
        """Counts the places that `key` has."""
        return self._taken[key]

    async def _take(self, key: Hashable, deadline: float) -> None:
        if self._free and self._taken[key] < self._share:  # so nobody of this key waits
            self._count(key, 1)
            return
        if len(self._waiting.get(key, ())) >= MOST_WAITING:
            raise TooManyWait
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(key, deque()).append(place)
        alarm = loop.call_at(deadline, _expire, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._give_back(key)  # it had just been given to this caller
            raise
        finally:
            alarm.cancel()
            self._forget(key, place)

    def _give_back(self, key: Hashable, shared: bool = True) -> None:
        self._count(key, -1)
        self._free -= not shared  # it has been given to others before
        self._give_on()

    def _give_on(self) -> None:
        while self._free and (turn := self._next_turn()) is not None:
            waiting = self._waiting.pop(turn)
            place = waiting.popleft()
            if waiting:
                self._waiting[turn] = waiting  # the last one now
            if not place.done():
                place.set_result(None)
                self._count(turn, 1)

    def _next_turn(self) -> Hashable | None:
        return next((key for key in self._waiting if self._taken[key] < self._share), None)

    def _count(self, key: Hashable, change: int) -> None:
        self._free -= change
        self._taken[key] += change
        if not self._taken[key]:
            del self._taken[key]

    def _forget(self, key: Hashable, place: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None:
            with contextlib.suppress(ValueError):
                waiting.remove(place)
            if not waiting:
                del self._waiting[key]


def _expire(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(WaitedTooLong())
