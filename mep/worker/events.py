"""What has been decided lately, as the monitor tells it: the newest events, and counts of the last day.

Kept in the worker's memory: a worker that is started anew begins at nothing (`since`). What must not be lost is in the
audit trail.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

MOST = 1000
"""Events that are kept, the newest."""
_MINUTE = 60
_WINDOWS = {"last_minute": 1, "last_hour": 60, "last_day": 1440}
"""Minutes over which is counted; the minute that has begun counts, too."""


class Events:
    """since: when it began (seconds of the wall clock). totals: how many of each event there have been since then;
    `refusals`: of each stage."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._newest: deque[bytes] = deque(maxlen=MOST)
        self._minutes: deque[tuple[int, Counter[str]]] = deque(maxlen=_WINDOWS["last_day"])
        self.since = clock()
        self.totals: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def add(self, said: Mapping[str, Any]) -> None:
        """An event has come from the monitor."""
        now, event = self._clock(), str(said["event"])
        self._newest.append(json.dumps({"time": round(now, 3), **said}).encode())
        self.totals[event] += 1
        if event == "refused":
            self.refusals[str(said.get("stage", ""))] += 1
        minute = int(now // _MINUTE)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, Counter()))
        self._minutes[-1][1][event] += 1

    def rates(self) -> dict[str, dict[str, int]]:
        """How many of each event there were in the last minute, hour and day."""
        now = int(self._clock() // _MINUTE)
        rates = {}
        for window, minutes in _WINDOWS.items():
            counted: Counter[str] = Counter()
            for minute, counts in self._minutes:
                if minute > now - minutes - (minutes == 1):  # a minute that has just begun says nothing alone
                    counted.update(counts)
            rates[window] = dict(counted)
        return rates

    def lines(self) -> list[bytes]:
        """All that are kept, as JSON, the newest first."""
        return list(reversed(self._newest))


def found(lines: list[bytes], most: int, **wanted: str) -> list[bytes]:
    """So many of these lines, those with these values. On the thread of the API: there may be many."""
    if not wanted:
        return lines[:most]
    said = ((line, json.loads(line)) for line in lines)
    fitting = (line for line, each in said if all(str(each.get(name)) == value for name, value in wanted.items()))
    return list(itertools.islice(fitting, most))
