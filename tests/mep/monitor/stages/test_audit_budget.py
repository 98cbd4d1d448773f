"""How much of the trail the tasks of an account may fill, and when it may go on."""

from __future__ import annotations

import pytest

from mep.monitor.stages.audit_budget import HOUR, MIB, AuditBudget
from mep.monitor.stages.quota import Clock
from mep.profile.sections.limits import Limits
from mep.request.refusal import Refused

ALICE, BOB = 54321, 54322
NOON = 12 * 3600.0


class Site:
    """A budget of 2 MiB, and a clock that is set by hand. It began at noon."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limits = Limits(audit_mib_per_hour_per_user=2)
        self.budget = AuditBudget(lambda: self.limits, Clock(lambda: self.now, lambda: NOON + self.now))


def test_an_hour_begins_with_the_first_record() -> None:
    site = Site()
    site.budget.spend(ALICE, MIB)
    site.now += 600
    site.budget.spend(BOB, 1)
    site.budget.spend(ALICE, MIB - 1)
    site.budget.check(ALICE)
    site.budget.spend(ALICE, 1)
    with pytest.raises(Refused) as caught:
        site.budget.check(ALICE)
    assert caught.value.refusal.stage == "admission"
    assert "13:00:00 UTC" in caught.value.refusal.reason_for_user
    assert "limits.audit_mib_per_hour_per_user" in caught.value.refusal.reason_for_admin
    site.budget.check(BOB)
    site.now = HOUR
    site.budget.check(ALICE)
    site.budget.spend(ALICE, 1)
    site.budget.check(ALICE)


def test_the_limit_is_the_one_in_force() -> None:
    site = Site()
    site.budget.spend(ALICE, 2 * MIB)
    assert site.budget.exceeded(ALICE)
    site.limits = Limits(audit_mib_per_hour_per_user=3)
    assert site.budget.exceeded(ALICE) is None
    site.limits = Limits(audit_mib_per_hour_per_user=None)
    site.budget.spend(ALICE, 1000 * MIB)
    assert site.budget.exceeded(ALICE) is None
