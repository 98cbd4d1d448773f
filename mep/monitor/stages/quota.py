"""How many user endpoints may run, and how many may be started at a time: the key `limits` of config.yaml.

`config` reads `Limits`. `pipeline` keeps one `Quota`, and starts each new user endpoint within it:

    with quota.start(name, uid, limits, running, deadline) as turn:
        ...  # render: what the user did wrong is told at once
        async with turn() as place:
            ...  # launch; `place` is told when nothing but the account's own can hold it up any more

A limit on numbers refuses. What is only busy waits, in turn with other accounts: for a place among the starts under
way, and for the minute that `starts_per_minute_per_user` counts in; but not more than `fair_queue.MOST_WAITING` of an
account. Only new starts are counted, never refreshes of what runs. Nothing here knows a process: what runs is told by
the caller with each start, so a user endpoint that an earlier manager started counts like any other, and nothing is
forgotten when one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from mep.monitor.stages.fair_queue import MOST_WAITING, FairQueue, Place, WaitedTooLong
from mep.profile.sections.limits import Limits
from mep.request.refusal import Refused

WINDOW = 60.0
"""Seconds over which starts are counted."""
PLACES = 64
"""Starts under way at a time, as far as more than the account's own can hold them up."""
SHARE = 4
"""Starts of one account under way, whatever is configured: none of its processes that nobody can end is one more."""


@dataclass(frozen=True)
class Clock:
    """Two clocks, in seconds: one to measure with, which never jumps, and one that people read."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    def utc_in(self, seconds: float) -> str:
        """The time of day in so many seconds, as `HH:MM:SS UTC`; rounded up, so that then it is over."""
        return time.strftime("%H:%M:%S UTC", time.gmtime(math.ceil(self.wall() + seconds)))


SYSTEM_CLOCK = Clock()


class Quota:
    """Counts the starts under way, and those of the last minute. Memory: as much as was started in that time."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._places = FairQueue(PLACES, SHARE)
        self._under_way: dict[str, int] = {}
        """The uid of each start that waits for its turn, or has it, by name."""
        self._starts: dict[int, deque[float]] = {}
        """The times of the starts of each uid in the last minute, and of those that wait for theirs; ascending."""

    @contextlib.contextmanager
    def start(
        self, name: str, uid: int, limits: Limits, running: Mapping[str, int], deadline: float
    ) -> Iterator[Callable[[], AbstractAsyncContextManager[Place]]]:
        """Within this the user endpoint `name` is being started, and is counted as if it ran, while it waits, too.

        Gives `turn`: what waits for the turn of `uid`, and then has a place. It raises Refused as below.

        limits: those in force. running: the uid of each user endpoint that runs, by its name. One that is in it while
        its start is still under way is counted once. deadline: until when it may wait, a time of the loop's clock.

        Raises:
            Refused: stage `admission`; a limit is reached, or the turn has not come, or will not come, in time. A
                start that is refused at once is not counted.
        """
        lingering = [uid for uid in self._places.lingering.elements() if isinstance(uid, int)]
        _check_numbers(uid, limits, [*{**running, **self._under_way}.values(), *lingering])
        _check_waiting(uid, list(self._under_way.values()).count(uid))
        at = self._reserve(uid, limits.starts_per_minute_per_user, deadline)
        self._under_way[name] = uid
        try:
            yield functools.partial(self._turn, uid, at, deadline)
        finally:
            self._under_way.pop(name, None)

    @contextlib.asynccontextmanager
    async def _turn(self, uid: int, at: float, deadline: float) -> AsyncIterator[Place]:
        """Waits until the time that was reserved, and for a place."""
        if (seconds := at - self._clock.monotonic()) > 0:
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self._starts[uid].remove(at)
                raise
        try:
            async with self._places.place(uid, deadline) as place:
                yield place
        except WaitedTooLong:
            raise _too_slow(uid, self._places.taken(uid)) from None

    def _reserve(self, uid: int, limit: int | None, deadline: float) -> float:
        """The time from which on the account may start another one. Starts of an account get theirs in their order."""
        now = self._clock.monotonic()
        self._forget(now)
        starts = self._starts.setdefault(uid, deque())
        at = now if limit is None or len(starts) < limit else max(now, starts[-limit] + WINDOW)
        seconds = at - now
        if seconds and asyncio.get_running_loop().time() + seconds > deadline:
            raise Refused(
                "admission",
                f"uid {uid} has had {len(starts)} starts, with those that wait; "
                f"{_key('starts_per_minute_per_user', limit)}. The next one is possible from "
                f"{self._clock.utc_in(seconds)} on",
                f"Your user endpoints may be started {limit} times a minute on this system, and more are waiting. "
                f"Please submit again from {self._clock.utc_in(seconds)} on.",
            )
        starts.append(at)
        return at

    def held(self, limits: Limits, owners: Sequence[int]) -> Iterator[tuple[int, float | None, str]]:
        """Who is at a limit: uid, seconds until one more may start if time alone decides, and why.

        owners: the uid of each user endpoint that runs.
        """
        most, a_minute, now = limits.max_ueps_per_user, limits.starts_per_minute_per_user, self._clock.monotonic()
        for uid, count in Counter(owners).items():
            if most is not None and count >= most:
                yield uid, None, f"has {count} user endpoints; {_key('max_ueps_per_user', most)}"
        for uid, starts in self._starts.items():
            if a_minute is not None and len(starts) >= a_minute and (left := starts[-a_minute] + WINDOW - now) > 0:
                yield uid, left, f"more starts wait; {_key('starts_per_minute_per_user', a_minute)}"

    def _forget(self, now: float) -> None:
        for uid, starts in list(self._starts.items()):
            while starts and starts[0] + WINDOW <= now:
                starts.popleft()
            if not starts:
                del self._starts[uid]


def _too_slow(uid: int, under_way: int) -> Refused:
    if under_way:
        return Refused(
            "admission",
            f"uid {uid} has {under_way} starts under way, which take long; this one has waited in vain for its turn "
            "(key start_patience of config.yaml). Can its home be reached?",
            f"{under_way} of your user endpoints are being started at this moment, and take long. "
            "Please submit again later.",
        )
    return Refused(
        "admission",
        f"a start of uid {uid} has waited in vain for its turn: {PLACES} starts of others are under way, and take long "
        "(key start_patience of config.yaml)",
        "This endpoint is busy with starting other user endpoints. Please submit again later.",
    )


def _check_waiting(uid: int, under_way: int) -> None:
    """`under_way`: the starts of the account that have a place, or wait for one or for their minute."""
    if under_way >= MOST_WAITING:
        raise Refused(
            "admission",
            f"{under_way} starts of uid {uid} are under way or wait for their turn, and no more may. Can its home be "
            "reached?",
            f"{under_way} of your user endpoints are being started or wait for that, and no more may. "
            "Please submit again later.",
        )


def _check_numbers(uid: int, limits: Limits, owners: Sequence[int]) -> None:
    """`owners`: the uid of each user endpoint that there is."""
    own = owners.count(uid)
    if limits.max_ueps_per_user is not None and own >= limits.max_ueps_per_user:
        raise Refused(
            "admission",
            f"uid {uid} has {own} user endpoints; {_key('max_ueps_per_user', limits.max_ueps_per_user)}",
            f"You may have {limits.max_ueps_per_user} user endpoints at a time on this system, and have them. "
            "Submit with the options of one that runs, or wait until one of them has stopped.",
        )
    if limits.max_ueps is not None and len(owners) >= limits.max_ueps:
        raise Refused(
            "admission",
            f"{len(owners)} user endpoints run; {_key('max_ueps', limits.max_ueps)}",
            f"This endpoint runs as many user endpoints as it may ({limits.max_ueps}). Please submit again later.",
        )


def _key(name: str, limit: int | None) -> str:
    return f"the limit is {limit} (key limits.{name} of config.yaml)"
