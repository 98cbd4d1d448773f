"""How much of the audit trail one account may fill with what its user endpoints say of tasks: a budget for each hour.

With high assurance a user endpoint goes on only while its records are written, so one that never stops telling would
fill the file system of the trail, and then nothing starts for anybody. `endpoint_events` spends, and ends who has
nothing left; `pipeline` asks before a start. What the manager itself decides is not counted here, but in
`requester_lines`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mep.monitor.stages.quota import SYSTEM_CLOCK, Clock
from mep.profile.sections.limits import Limits
from mep.request.refusal import Refused

HOUR = 3600.0
MIB = 1 << 20


@dataclass
class _Hour:
    """Of one account: it begins with a record, and another one with the first record after its end."""

    began: float
    spent: int = 0


class AuditBudget:
    """Knows accounts by uid. limits: gives those in force. Memory: one short record per account and hour."""

    def __init__(self, limits: Callable[[], Limits], clock: Clock = SYSTEM_CLOCK) -> None:
        self._limits = limits
        self._clock = clock
        self._hours: dict[int, _Hour] = {}  # the one that began first is the first one

    def spend(self, uid: int, size: int) -> None:
        """Counts bytes of the trail."""
        self._forget()
        self._hours.setdefault(uid, _Hour(self._clock.monotonic())).spent += size

    def exceeded(self, uid: int) -> str | None:
        """Says that nothing is left, and until when, in words for user and admin. None: there is something left."""
        self._forget()
        limit, hour = self._limits().audit_mib_per_hour_per_user, self._hours.get(uid)
        if limit is None or hour is None or hour.spent < limit * MIB:
            return None
        until = self._clock.utc_in(hour.began + HOUR - self._clock.monotonic())
        return (
            f"the audit records of this account's tasks have filled the {limit} MiB that they may have in an hour "
            f"(limits.audit_mib_per_hour_per_user), which ends at {until}"
        )

    def check(self, uid: int) -> None:
        """Returns if a user endpoint of `uid` may be started. Raises Refused, stage `admission`."""
        if (why := self.exceeded(uid)) is not None:
            raise Refused(
                "admission",
                f"uid {uid}: {why}. See in the trail what its tasks do, or raise the limit",
                f"Your user endpoints may not be started now: {why}. Please submit again later, and fewer tasks.",
            )

    def _forget(self) -> None:
        now = self._clock.monotonic()
        for uid, hour in list(self._hours.items()):
            if hour.began + HOUR > now:
                return
            del self._hours[uid]
