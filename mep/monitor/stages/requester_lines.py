"""How much of trail and log one requester may fill with requests that start nothing: refused, refreshed, superseded.

They cost who sends them nothing, so each requester has so many lines an hour in full. What comes then is counted, and
told every ten seconds by one line, `counted`: nothing is decided without being on record, but not each with a line of
its own. Lines of what starts, runs and ends are never counted instead of being written. `decisions` has one of these.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mep.monitor.stages.quota import SYSTEM_CLOCK, Clock

IN_FULL = 1000
"""Lines of one requester that are written in full in an hour."""
HOUR = 3600.0
TELL_AFTER = 10.0
"""Seconds for which lines are counted before that is told: so much a crash of the manager can lose."""


@dataclass
class _Lines:
    """Of one requester in one hour. counted: by what they would have said. last: the request of the last one."""

    began: float
    written: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    last: str = ""
    timer: asyncio.TimerHandle | None = None


class RequesterLines:
    """tell: writes the line for a requester: its last request, and what was counted. Belongs to the event loop."""

    def __init__(self, tell: Callable[[str, str, dict[str, int]], None], clock: Clock = SYSTEM_CLOCK) -> None:
        self._tell = tell
        self._clock = clock
        self._lines: dict[str, _Lines] = {}  # the one whose hour began first is the first one

    def in_full(self, requester: str, request_id: str, what: str) -> bool:
        """Says whether a line is to be written; otherwise it is counted.

        requester: empty for messages of which that cannot be told; they share what one requester has.
        """
        self._forget()
        lines = self._lines.setdefault(requester, _Lines(self._clock.monotonic()))
        if lines.written < IN_FULL:
            lines.written += 1
            return True
        lines.counted[what] += 1
        lines.last = request_id
        if lines.timer is None:
            lines.timer = asyncio.get_running_loop().call_later(TELL_AFTER, self._told, requester, lines)
        return False

    def close(self) -> None:
        """Tells what has been counted so far."""
        for requester, lines in self._lines.items():
            if lines.timer is not None:
                self._told(requester, lines)

    def _told(self, requester: str, lines: _Lines) -> None:
        if lines.timer is not None:
            lines.timer.cancel()
            lines.timer = None
        counted, lines.counted = dict(lines.counted), Counter()
        self._tell(requester, lines.last, counted)

    def _forget(self) -> None:
        oldest_kept = self._clock.monotonic() - HOUR
        for requester, lines in list(self._lines.items()):
            if lines.began > oldest_kept:
                return
            if lines.timer is None:  # else there is something to tell
                del self._lines[requester]
