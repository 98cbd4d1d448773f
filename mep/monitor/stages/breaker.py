"""The circuit breaker: holds back a user whose user endpoints keep dying before their first result.

Their client submits again and again, each time something is started that dies at once. So after some failures in a
row the user has to wait, longer each time; after each pause one start is let through, which shows whether the cause
has been mended. `pipeline` asks `check` before a start, and tells what became of it:

    did_work     its first result came: half is forgotten
    died_early   it died before its first result, or could not be launched
    give_back    it was refused after `check` for another reason, and nothing was started

It is for accidents. That a result came is the word of a process of the user's, who can make it up: once for each user
endpoint that runs. So a word forgives half of the failures at most, and what keeps starts apart whatever anybody says
is `quota`.

A start of which nothing is ever told holds up its user for one more pause, not for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mep.monitor.stages.quota import SYSTEM_CLOCK, Clock
from mep.request.refusal import Refused

FREE_FAILURES = 3
"""So many in a row have no consequence."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0
"""Seconds; each pause is twice the one before."""
MEMORY = 2 * LONGEST_PAUSE
"""Seconds without a failure after which all is forgotten."""


@dataclass
class _Record:
    """Of one user. trying: a start was let through after a pause, and what became of it is not known yet."""

    failures: int = 0
    reason: str = ""
    failed: float = 0.0
    held_until: float = -math.inf
    trying: bool = False


class Breaker:
    """One for all users; knows them by uid. Memory: one short record per user with a failure within `MEMORY`."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._records: dict[int, _Record] = {}  # by time of the last failure, oldest first

    def check(self, uid: int) -> None:
        """Returns if a user endpoint of `uid` may be started; after a pause that is so for one start.

        Raises:
            Refused: stage `admission`; the user is held back.
        """
        self._forget()
        record = self._records.get(uid)
        if record is None or record.failures <= FREE_FAILURES:
            return
        now = self._clock.monotonic()
        if now < record.held_until:
            raise _held_back(uid, record, self._clock.utc_in(record.held_until - now))
        record.trying = True
        record.held_until = now + pause_after(record.failures)

    def did_work(self, uid: int) -> None:
        """A user endpoint of `uid` has had its first result: half of the failures count no more."""
        record = self._records.get(uid)
        if record is None:
            return
        record.failures //= 2
        record.trying = False
        record.held_until = min(record.held_until, record.failed + pause_after(record.failures))
        if record.failures == 0:
            del self._records[uid]

    def died_early(self, uid: int, reason: str) -> None:
        """A user endpoint of `uid` died before its first result, or could not be launched.

        reason: is shown to that user: an ending ("exit status 1"), or a refusal's text for the user.
        """
        self._forget()
        record = self._records.pop(uid, None) or _Record()
        self._records[uid] = record  # now the last one
        now = self._clock.monotonic()
        record.reason, record.failed = reason, now
        if now < record.held_until and not record.trying:
            return  # several died at once, of one cause: that makes one pause
        record.failures += 1
        record.trying = False
        record.held_until = now + pause_after(record.failures)

    def give_back(self, uid: int) -> None:
        """The start that `check` has let through was not made: the next one need not wait for it."""
        record = self._records.get(uid)
        if record is not None and record.trying:
            record.trying = False
            record.held_until = self._clock.monotonic()

    def held(self) -> list[tuple[int, float, str]]:
        """Who is held back: uid, seconds that are left, and why."""
        self._forget()
        now = self._clock.monotonic()
        return [
            (uid, record.held_until - now, f"{record.failures} failed starts in a row; the last: {record.reason}")
            for uid, record in self._records.items()
            if record.failures > FREE_FAILURES and now < record.held_until
        ]

    def _forget(self) -> None:
        """Users whose last failure is long ago."""
        oldest_kept = self._clock.monotonic() - MEMORY
        for uid, record in list(self._records.items()):
            if record.failed > oldest_kept:
                return
            del self._records[uid]


def pause_after(failures: int) -> float:
    """The seconds that a user is held back after so many failures in a row."""
    if failures <= FREE_FAILURES:
        return 0.0
    doublings = min(failures - FREE_FAILURES - 1, 32)  # a power without end would not fit into a float
    return min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE)


def _held_back(uid: int, record: _Record, until: str) -> Refused:
    reason = record.reason.rstrip(".")
    return Refused(
        "admission",
        f"uid {uid} is held back until {until}: its user endpoints keep dying before their first result, at least "
        f"{record.failures} in a row, the last one with: {reason}. Their endpoint.log says more; a restart of the "
        "manager lifts the pause",
        f"Your user endpoints keep ending before their first result, the last one with: {reason}. Look into "
        f"endpoint.log in its folder on that system, mend the cause, and submit again from {until} on.",
    )
