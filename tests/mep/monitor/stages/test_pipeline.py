"""The way of a request: the order of its stages, what is on record of each, and that every request has one end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mep.monitor.audit import AuditTrail
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages.breaker import FREE_FAILURES, Breaker
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.pipeline import Pipeline
from mep.processes.process import Process
from mep.profile.profile import Profile
from mep.profile.sections.limits import Limits
from mep.reader import loader
from mep.request.account import Account
from mep.request.launch_plan import LaunchPlan
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint
from tests.mep.monitor.stubs import StubMapper, StubNameService, StubNotices, StubRenderer


class StubTable:
    """Starts nothing: a user endpoint is this process. fails: raised instead of launching, after `waits`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.endpoints: dict[str, UserEndpoint] = {}
        self.fails: BaseException | None = None
        self.waits: asyncio.Event | None = None
        self.plans: list[LaunchPlan] = []
        self.calls: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[UserEndpoint]:
        return iter(self.endpoints.values())

    def get(self, name: str) -> UserEndpoint | None:
        return self.endpoints.get(name)

    def command_came(self, name: str) -> None:
        self.calls.append(("command came", name))

    def refresh(self, endpoint: UserEndpoint, command: StartEndpoint) -> None:
        self.calls.append(("refresh", command.request_id))

    async def launch(self, plan: LaunchPlan, command: StartEndpoint) -> UserEndpoint:
        self.calls.append(("launch", command.request_id))
        self.plans.append(plan)
        if self.waits is not None:
            await self.waits.wait()
        if self.fails is not None:
            raise self.fails
        process, credentials = Process.of(os.getpid(), os.getuid()), CredentialFile(self._folder / "none", "key")
        made = UserEndpoint(command, plan.account, process, self._folder, credentials, None, None, 0.0)
        self.endpoints[command.name] = made
        return made


class Site:
    """A pipeline with stubs around it, and a real audit trail."""

    def __init__(self, folder: Path, profile: Profile, identity: MappedIdentity, account: Account) -> None:
        self.profile = profile
        self.mapper = StubMapper(identity)
        self.names = StubNameService({account.name: account})
        self.renderer = StubRenderer()
        self.notices = StubNotices()
        self.table = StubTable(folder)
        self.breaker = Breaker()
        self._path = folder / "audit.log"
        self.audit = AuditTrail(self._path, required=True)
        decisions = Decisions(self.audit, self.notices, lambda: "in force")
        parts: Any = (self.mapper, self.names, self.renderer, decisions, self.breaker, self.table)
        self.pipeline = Pipeline(lambda: self.profile, *parts)

    def trail(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def events(self, request_id: str = "r1") -> list[str]:
        return [line["event"] for line in self.trail() if line["request"] == request_id]

    def limit(self, **limits: int) -> None:
        self.profile = dataclasses.replace(
            self.profile, config=dataclasses.replace(self.profile.config, limits=Limits(**limits))
        )


@pytest.fixture
def site(tmp_path: Path, profile_directory: Path, identity_of_alice: MappedIdentity, alice: Account) -> Iterator[Site]:
    made = Site(tmp_path, loader.load(profile_directory), identity_of_alice, alice)
    yield made
    made.audit.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


def numbered(command: StartEndpoint, number: int, name: str | None = None) -> StartEndpoint:
    return dataclasses.replace(command, request_id=f"r{number}", name=name or command.name)


def test_a_request_goes_through_all_stages(site: Site, command: StartEndpoint, alice: Account) -> None:
    run(lambda: site.pipeline.handle(command))
    assert site.events() == ["received", "mapped", "started"]
    received, mapped, started = site.trail()
    assert (received["endpoint"], received["identity"]) == (command.name, command.requester)
    assert (mapped["account"], mapped["uid"], mapped["rule"]) == ("alice", alice.uid, "mapping.json:3")
    assert mapped["configuration"] == site.profile.digest[:12], "the profile that was used, whatever is in force now"
    assert (started["pid"], started["username"]) == (os.getpid(), command.requester_name)
    assert site.table.plans[0].handover["config"] == "engine: {}"
    assert site.table.calls == [("command came", command.name), ("launch", "r1")]
    assert site.notices.sent == []
    assert "hunter2" not in json.dumps(site.trail())


def test_the_second_request_refreshes(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        await site.pipeline.handle(numbered(command, 2))

    run(story)
    assert site.events("r2") == ["received", "mapped", "refreshed"]
    assert ("refresh", "r2") in site.table.calls


def test_whoever_maps_to_another_account_does_not_reach_it(
    site: Site, command: StartEndpoint, alice: Account, identity_of_alice: MappedIdentity
) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        site.names.accounts["bob"] = dataclasses.replace(alice, name="bob", uid=54322)
        site.mapper.answer = dataclasses.replace(identity_of_alice, username="bob")
        await site.pipeline.handle(numbered(command, 2))

    run(story)
    assert site.events("r2")[-1] == "refused"
    ((request_id, text),) = site.notices.sent
    assert request_id == "r2" and "mapping to a local account has changed" in text and "alice" not in text


@pytest.mark.parametrize(
    ("stage", "spoil"),
    [
        ("identity", lambda site: setattr(site.mapper, "answer", Refused("identity", "for admins", "For users."))),
        ("account", lambda site: site.names.accounts.clear()),
        ("admission", lambda site: site.names.accounts.update(alice=root_account())),
        ("options", lambda site: setattr(site.renderer, "fails", Refused("options", "for admins", "For users."))),
        ("launch", lambda site: setattr(site.table, "fails", Refused("launch", "for admins", "For users."))),
        ("manager", lambda site: setattr(site.renderer, "fails", KeyError("a bug"))),
        ("manager", lambda site: setattr(site.table, "fails", OSError("no memory"))),
    ],
)
def test_every_stage_that_says_no_is_one_refusal(
    site: Site, command: StartEndpoint, stage: str, spoil: Callable[[Site], object]
) -> None:
    spoil(site)
    run(lambda: site.pipeline.handle(command))
    refused = [line for line in site.trail() if line["event"] == "refused"]
    assert [line["stage"] for line in refused] == [stage]
    assert site.events()[-1] == "refused"
    ((request_id, text),) = site.notices.sent
    assert request_id == "r1" and text.endswith("(request r1)")
    assert "for admins" not in text and "bug" not in text and "memory" not in text
    assert list(site.table) == []


def root_account() -> Account:
    return Account("root", 0, 0, "", "/root", "/bin/sh", (0,))


def test_a_message_that_is_no_request(site: Site) -> None:
    refusal = Refusal("command", "not JSON", "Not understood.")

    async def story() -> None:
        await site.pipeline.reject(refusal, "r1", None)
        await site.pipeline.reject(refusal, "r2", {"some": "credentials"})

    run(story)
    assert [line["event"] for line in site.trail()] == ["refused", "refused"]
    assert site.notices.sent == [("r2", "Not understood. (request r2)")]


def test_of_requests_that_wait_for_one_another_only_the_newest_goes_on(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        site.mapper.waits = asyncio.Event()
        requests = [asyncio.ensure_future(site.pipeline.handle(numbered(command, number))) for number in (1, 2, 3)]
        await requests[1]
        site.mapper.waits.set()
        await asyncio.gather(*requests)

    run(story)
    assert site.mapper.asked == ["r1", "r3"]
    assert site.events("r2") == ["received", "superseded"]
    assert site.events("r3")[-1] == "refreshed"


def test_requests_for_others_do_not_wait(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        site.table.waits = asyncio.Event()
        first = asyncio.ensure_future(site.pipeline.handle(command))
        while not site.table.plans:
            await asyncio.sleep(0)
        site.table.waits, waits = None, site.table.waits
        await site.pipeline.handle(numbered(command, 2, "another"))
        assert not first.done()
        waits.set()
        await first

    run(story)
    assert site.events("r2")[-1] == "started"


def test_a_limit_counts_what_runs_and_what_is_being_started(site: Site, command: StartEndpoint) -> None:
    site.limit(max_ueps_per_user=2)

    async def story() -> None:
        for number in (1, 2, 3):
            await site.pipeline.handle(numbered(command, number, f"uep{number}"))
        await site.pipeline.handle(numbered(command, 4, "uep1"))

    run(story)
    assert [site.events(f"r{number}")[-1] for number in (1, 2, 3, 4)] == ["started", "started", "refused", "refreshed"]


def test_whose_launches_fail_has_to_wait(site: Site, command: StartEndpoint) -> None:
    site.table.fails = Refused("launch", "no home", "Your home folder cannot be entered.")

    async def story() -> None:
        for number in range(FREE_FAILURES + 2):
            await site.pipeline.handle(numbered(command, number))

    run(story)
    stages = [line["stage"] for line in site.trail() if line["event"] == "refused"]
    assert stages == ["launch"] * (FREE_FAILURES + 1) + ["admission"]
    assert "Your home folder cannot be entered" in site.notices.sent[-1][1]


def test_whose_options_are_refused_need_not_wait(site: Site, command: StartEndpoint) -> None:
    site.renderer.fails = Refused("options", "wrong", "Wrong.")

    async def story() -> None:
        for number in range(FREE_FAILURES + 3):
            await site.pipeline.handle(numbered(command, number))

    run(story)
    assert {line["stage"] for line in site.trail() if line["event"] == "refused"} == {"options"}


@pytest.mark.parametrize("at", ["received", "mapped"])
def test_nothing_is_started_that_is_not_on_record(site: Site, command: StartEndpoint, tmp_path: Path, at: str) -> None:
    """The trail cannot be written from some stage on."""

    async def spoil() -> None:
        (tmp_path / "audit.log").rename(tmp_path / "until then")
        (tmp_path / "audit.log").mkdir()

    async def story() -> None:
        if at == "received":
            await spoil()
            await site.pipeline.handle(command)
            return
        site.mapper.waits = asyncio.Event()
        request = asyncio.ensure_future(site.pipeline.handle(command))
        while not site.mapper.asked:
            await asyncio.sleep(0)
        await spoil()
        site.mapper.waits.set()
        await request

    run(story)
    assert site.table.plans == []
    ((_, text),) = site.notices.sent
    assert "cannot keep its audit trail" in text
    assert bool(site.mapper.asked) == (at == "mapped")


def test_a_revival_is_the_request_once_more(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.revive(command)
        site.mapper.answer = Refused("identity", "not any more", "You are not mapped any more.")
        await site.pipeline.revive(numbered(command, 2, "another"))

    run(story)
    assert site.events() == ["mapped", "started"]
    assert [request_id for request_id, _ in site.notices.sent] == ["r2"]


def test_a_request_that_is_cancelled_lets_the_next_one_in(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        site.table.waits = asyncio.Event()
        request = asyncio.ensure_future(site.pipeline.handle(command))
        while not site.table.plans:
            await asyncio.sleep(0)
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        site.table.waits = None
        await site.pipeline.handle(numbered(command, 2))

    run(story)
    assert site.events("r2")[-1] == "started"
