"""How long starts take, step by step, and how many are under way: for `metrics`.

Counted from when the monitor tells of a decision to when it tells of the next one of the same request. Kept in the
worker's memory, as `events`.
"""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds."""
_ENDS = {"mapped": "identification", "starting": "preparation", "started": "launch"}
"""Event: the step that it ends."""
_BEGINS = {"received": "identification", "mapped": "preparation", "starting": "launch"}
"""Event: the step that it begins."""
_DECIDED = frozenset({"started", "refreshed", "refused", "superseded"})
STEPS = (*_ENDS.values(), "check_in")
_MOST = 10_000
"""Requests under way; of more, the oldest are forgotten."""


class Histogram:
    """How many seconds fell between which bounds. counts: one more than there are bounds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> list[int]:
        """How many were at most as long as each bound; the last one: all."""
        return list(itertools.accumulate(self._counts))


class Durations:
    """taken: for each of STEPS."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[str, tuple[str, float]] = {}
        self.taken = {step: Histogram() for step in STEPS}

    def add(self, said: Mapping[str, Any]) -> None:
        """An event has come from the monitor."""
        event, request, now = said["event"], said["request"], self._clock()
        if event == "checked in":
            self.taken["check_in"].add(said["seconds"])
        if event not in _BEGINS and event not in _DECIDED:  # of a user endpoint: its request may be under way again
            return
        step, began = self._began.pop(request, ("", now))
        if step and _ENDS.get(event) == step:
            self.taken[step].add(now - began)
        if event in _BEGINS:
            self._began[request] = _BEGINS[event], now
            if len(self._began) > _MOST:
                del self._began[next(iter(self._began))]

    def under_way(self) -> Mapping[str, int]:
        """How many starts are in each step."""
        counted = Counter(step for step, _ in self._began.values())
        return {step: counted[step] for step in _ENDS.values()}
