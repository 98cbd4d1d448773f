"""What follows from what happens to user endpoints: what is on record, who is told, what is started again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mep.monitor.audit import AuditTrail
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.user_endpoint import NOT_ENDED, ExitReport, UserEndpoint
from mep.monitor.stages.audit_budget import AuditBudget
from mep.monitor.stages.breaker import FREE_FAILURES, Breaker
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.endpoint_events import EndpointEvents
from mep.monitor.stages.orders import Orders
from mep.processes.process import Process
from mep.profile.sections.limits import Limits
from mep.request.account import Account
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint
from tests.mep.monitor.stubs import StubKept, StubNotices

DIED = ExitReport("signal 9 (SIGKILL)", clean=False, seconds=2.0, useless=True, cpu_seconds=0.12345, peak_memory=7)


@pytest.fixture
def endpoint(tmp_path: Path, command: StartEndpoint, alice: Account) -> UserEndpoint:
    """This process, as if it were a user endpoint of alice's."""
    process, credentials = Process.of(os.getpid(), os.getuid()), CredentialFile(tmp_path / "none", "key")
    return UserEndpoint(command, alice, process, tmp_path, credentials, None, None, 0.0, configuration="c0ffee")


class Parts:
    """Events, and what stands around them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.log"
        self.audit = AuditTrail(self._path, required=True)
        self.notices = StubNotices()
        self.limits = Limits()
        self.budget = AuditBudget(lambda: self.limits)
        self.breaker = Breaker()
        self.kept = StubKept()
        self.revived: list[StartEndpoint] = []
        self.decisions = Decisions(self.audit, self.notices, lambda: "in force")
        self.orders = Orders(folder / "orders", lambda: None)
        kept: Any = self.kept
        self.events = EndpointEvents(
            self.decisions, self.audit, self.budget, self.breaker, self._revive, self._tell, kept, self.orders
        )

    async def _revive(self, command: StartEndpoint) -> None:
        self.revived.append(command)

    async def _tell(self, refusal: Refusal, command: StartEndpoint) -> None:
        """Stands for `Pipeline.tell`."""
        await self.decisions.refuse(refusal, command.request_id, command.credentials)

    def trail(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def run(tmp_path: Path, story: Callable[[Parts], Awaitable[None] | None]) -> Parts:
    async def told() -> Parts:
        parts = Parts(tmp_path)
        made = story(parts)
        if made is not None:
            await made
        await parts.events.close()
        parts.audit.close()
        return parts

    return asyncio.run(told())


def test_a_life_is_on_record(tmp_path: Path, endpoint: UserEndpoint) -> None:
    async def story(parts: Parts) -> None:
        await parts.events.held(endpoint)
        endpoint.checked_in_after = 1.23456
        parts.events.checked_in(endpoint)
        parts.events.adopted(endpoint)
        assert await parts.events.task_records(endpoint, [b"fid=f tid=t bid=b RECEIVED"]) is None
        parts.events.exited(endpoint, DIED)

    parts = run(tmp_path, story)
    starting, checked_in, adopted, task, exited = parts.trail()
    for line in (starting, adopted, exited):
        assert (line["endpoint"], line["account"], line["pid"]) == (endpoint.name, "alice", os.getpid())
        assert line["configuration"] == "c0ffee", "of what it was started by"
    assert (checked_in["event"], checked_in["seconds"]) == ("checked in", 1.235)
    assert (task["task"], task["action"]) == ("t", "RECEIVED")
    assert (exited["ending"], exited["cpu_seconds"], exited["peak_memory_kib"]) == (DIED.ending, 0.123, 7)
    assert parts.notices.sent == []


@pytest.mark.parametrize(("before", "when"), [(True, "before its first heartbeat"), (False, "unexpectedly")])
def test_who_waits_is_told_of_a_death(tmp_path: Path, endpoint: UserEndpoint, before: bool, when: str) -> None:
    report = dataclasses.replace(DIED, before_check_in=before)
    parts = run(tmp_path, lambda parts: parts.events.died(endpoint, report))
    (line,) = parts.trail()
    assert (line["event"], line["stage"]) == ("refused", "running")
    ((request_id, text),) = parts.notices.sent
    assert request_id == endpoint.command.request_id
    assert when in text and DIED.ending in text and "alice" not in text


@pytest.mark.parametrize("useless", [True, False])
def test_only_useless_deaths_hold_back(tmp_path: Path, endpoint: UserEndpoint, useless: bool) -> None:
    report = dataclasses.replace(DIED, useless=useless)

    def story(parts: Parts) -> None:
        for _ in range(FREE_FAILURES + 1):
            parts.events.died(endpoint, report)
        if useless:
            with pytest.raises(Refused):
                parts.breaker.check(endpoint.account.uid)
            parts.events.working(endpoint)
        parts.breaker.check(endpoint.account.uid)

    run(tmp_path, story)


def test_who_has_asked_gets_another(tmp_path: Path, endpoint: UserEndpoint) -> None:
    parts = run(tmp_path, lambda parts: parts.events.revive(endpoint))
    assert parts.revived == [endpoint.command]
    assert parts.notices.sent == []


def test_a_manager_that_is_closing_starts_nothing_and_says_so(tmp_path: Path, endpoint: UserEndpoint) -> None:
    def story(parts: Parts) -> None:
        parts.events.begin_closing()
        parts.events.revive(endpoint)

    parts = run(tmp_path, story)
    assert parts.revived == []
    ((_, text),) = parts.notices.sent
    assert "being stopped" in text


def test_a_trail_that_cannot_be_written(
    tmp_path: Path, endpoint: UserEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """What may not happen then does not; what has happened is told all the same."""

    async def story(parts: Parts) -> None:
        (tmp_path / "audit.log").rename(tmp_path / "until then")
        (tmp_path / "audit.log").mkdir()
        with pytest.raises(Refused) as caught:
            await parts.events.held(endpoint)
        assert caught.value.refusal.stage == "audit"
        assert "cannot be written" in str(await parts.events.task_records(endpoint, [b"a record"]))
        parts.events.exited(endpoint, DIED)
        parts.events.died(endpoint, DIED)

    parts = run(tmp_path, story)
    assert len(parts.notices.sent) == 1
    assert "'exited' is not on record" in caplog.text
    assert "its tasks cannot be audited" in caplog.text


@pytest.mark.parametrize(
    ("report", "said", "left"),
    [
        (dataclasses.replace(NOT_ENDED, clean=True), {b"ready", b"stopped"}, False),
        (dataclasses.replace(NOT_ENDED, clean=True), {b"ready"}, True),
        (dataclasses.replace(NOT_ENDED, clean=True), set(), False),
        (NOT_ENDED, {b"ready"}, True),
    ],
    ids=["clean", "results are left", "another program", "killed while it stopped"],
)
def test_what_is_kept_for_a_next_manager_after_an_end(
    tmp_path: Path, endpoint: UserEndpoint, report: ExitReport, said: set[bytes], left: bool
) -> None:
    def story(parts: Parts) -> None:
        parts.events.adopted(endpoint)
        endpoint.said |= said
        parts.events.exited(endpoint, report)

    assert (endpoint.name in run(tmp_path, story).kept.requests) == left


def test_who_tells_of_tasks_without_end_is_ended_alone(tmp_path: Path, endpoint: UserEndpoint) -> None:
    """And with it whatever else of the account writes; the trail has what was within the budget."""
    other = dataclasses.replace(endpoint, account=dataclasses.replace(endpoint.account, name="bob", uid=54322))

    async def story(parts: Parts) -> None:
        parts.limits = Limits(audit_mib_per_hour_per_user=1)
        why = None
        while why is None:
            why = await parts.events.task_records(endpoint, [b"x" * 2048] * 16)
        assert "filled the 1 MiB" in why and "UTC" in why
        size = (tmp_path / "audit.log").stat().st_size
        assert 1 << 20 <= size < (1 << 20) + 50_000
        assert await parts.events.task_records(endpoint, [b"more"]) == why
        assert (tmp_path / "audit.log").stat().st_size == size
        assert await parts.events.task_records(other, [b"another's"]) is None
        parts.limits = Limits(audit_mib_per_hour_per_user=None)
        assert await parts.events.task_records(endpoint, [b"more"]) is None

    run(tmp_path, story)
