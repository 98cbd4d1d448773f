"""How many user endpoints may run and be started: the key `limits` of config.yaml.

`config` reads `Limits`. `pipeline` keeps one `Quota`, and starts each new user endpoint within it:

    with quota.start(name, uid, limits, running):
        ...  # render, launch

Only new starts are counted, never refreshes of what runs. Nothing here knows a process: what runs is told by the caller
with each start, so a user endpoint that an earlier manager started counts like any other, and nothing is forgotten
when one ends.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mep.profile.sections.limits import Limits
from mep.request.refusal import Refused

WINDOW = 60.0
"""Seconds over which starts are counted."""
MOST_AT_ONCE = 16
"""Starts of one account under way, whatever is configured: a hanging home must not take all places for requests."""


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
        self._under_way: dict[str, int] = {}
        self._recent: deque[tuple[float, int]] = deque()

    @contextlib.contextmanager
    def start(self, name: str, uid: int, limits: Limits, running: Mapping[str, int]) -> Iterator[None]:
        """Within this the user endpoint `name` of `uid` is being started, and is counted as if it ran.

        limits: those in force. running: the uid of each user endpoint that runs, by its name. One that is in it while
        its start is still under way is counted once.

        Raises:
            Refused: stage `admission`; a limit is reached. A refused start is not counted.
        """
        _check_numbers(uid, limits, list({**running, **self._under_way}.values()))
        self._check_under_way(uid)
        self._check_rate(uid, limits.starts_per_minute_per_user)
        self._recent.append((self._clock.monotonic(), uid))
        self._under_way[name] = uid
        try:
            yield
        finally:
            self._under_way.pop(name, None)

    def _check_under_way(self, uid: int) -> None:
        if sum(owner == uid for owner in self._under_way.values()) >= MOST_AT_ONCE:
            raise Refused(
                "admission",
                f"uid {uid} has {MOST_AT_ONCE} starts under way, which take long; can its home be reached?",
                f"{MOST_AT_ONCE} of your user endpoints are being started at this moment. Please submit again later.",
            )

    def _check_rate(self, uid: int, limit: int | None) -> None:
        now = self._clock.monotonic()
        while self._recent and self._recent[0][0] + WINDOW <= now:
            self._recent.popleft()
        if limit is None:
            return
        starts = [at for at, who in self._recent if who == uid]
        if len(starts) >= limit:
            until = self._clock.utc_in(starts[-limit] + WINDOW - now)
            raise Refused(
                "admission",
                f"uid {uid} has had {len(starts)} starts in the last minute; "
                f"{_key('starts_per_minute_per_user', limit)}. The next one is possible from {until} on",
                f"Your user endpoints may be started {limit} times a minute on this system, and have been. "
                f"Please submit again from {until} on.",
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


def _key(name: str, limit: int) -> str:
    return f"the limit is {limit} (key limits.{name} of config.yaml)"
