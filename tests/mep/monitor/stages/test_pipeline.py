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

from lab.waiting import aiountil
from mep.monitor.audit import AuditTrail
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.kept import Kept
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages import untold
from mep.monitor.stages.audit_budget import AuditBudget
from mep.monitor.stages.breaker import FREE_FAILURES, Breaker
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.fair_queue import MOST_WAITING
from mep.monitor.stages.orders import Kill, Orders, ended_by
from mep.monitor.stages.orders_file import Order
from mep.monitor.stages.pipeline import AGREEING, SHARE, Pipeline
from mep.monitor.stages.rights import Rights
from mep.processes.control_protocol import Kind
from mep.processes.process import Process
from mep.profile.profile import Profile
from mep.profile.sections.limits import Limits
from mep.reader import loader
from mep.request.account import Account
from mep.request.launch_plan import LaunchPlan
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint
from mep.worker.consumer import PREFETCH
from tests.mep.credentials import StubSealer, inside, plain, with_sealed
from tests.mep.monitor.stubs import StubKept, StubMapper, StubNameService, StubNotices, StubRenderer


class StubTable:
    """Starts nothing: a user endpoint is this process. fails: raised instead of launching, after `waits`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.endpoints: dict[str, UserEndpoint] = {}
        self.fails: BaseException | None = None
        self.waits: asyncio.Event | None = None
        self.plans: list[LaunchPlan] = []
        self.handed_over: list[object] = []
        self.calls: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[UserEndpoint]:
        return iter(self.endpoints.values())

    def get(self, name: str) -> UserEndpoint | None:
        return self.endpoints.get(name)

    def command_came(self, name: str) -> None:
        self.calls.append(("command came", name))

    async def refresh(self, command: StartEndpoint, refusal: Refusal | None = None) -> UserEndpoint | None:
        endpoint = self.get(command.name)
        if endpoint is not None:
            endpoint.command, endpoint.refusal = command, refusal
            self.calls.append(("refresh", command.request_id))
        return endpoint

    def end(self, endpoint: UserEndpoint, why: str) -> None:
        self.calls.append(("end", endpoint.name))
        endpoint.state = State.STOPPING_ASKED

    def kill(self, endpoint: UserEndpoint, refusal: Refusal) -> None:
        self.calls.append(("kill", endpoint.name))
        endpoint.refusal = refusal

    async def launch(self, plan: LaunchPlan, command: StartEndpoint, place: object) -> UserEndpoint:
        self.calls.append(("launch", command.request_id))
        self.plans.append(plan)
        self.handed_over.append(json.loads(plan.credentials.read()))
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
        self.kept = StubKept()
        self.breaker = Breaker()
        self.path = folder / "audit.log"
        self.audit = AuditTrail(self.path, required=True)
        self.decisions = decisions = Decisions(self.audit, self.notices, lambda: "in force")
        self.budget = AuditBudget(lambda: self.profile.config.limits)
        self.sealer = StubSealer()
        helpers: Any = (self.mapper, self.names, self.renderer, self.sealer)
        parts: Any = (*helpers, decisions, self.budget, self.breaker, self.table)
        self.orders = Orders(folder / "orders", lambda: None)
        rights: Any = (self.mapper, self.names, decisions, self.table, self.orders)
        kept: Any = self.kept
        self.pipeline = Pipeline(lambda: self.profile, *parts, Rights(lambda: self.profile, *rights), kept, self.orders)

    def trail(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def events(self, request_id: str = "r1") -> list[str]:
        return [line["event"] for line in self.trail() if line["request"] == request_id]

    def limit(self, **limits: int) -> None:
        self.profile = dataclasses.replace(
            self.profile, config=dataclasses.replace(self.profile.config, limits=Limits(**limits))
        )


@pytest.fixture
def site(
    tmp_path: Path,
    profile_directory: Path,
    identity_of_alice: MappedIdentity,
    alice: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    monkeypatch.setattr("mep.monitor.stages.pipeline.PAUSE", 0.001)
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


def test_a_command_of_before_is_opened_for_its_hand_over(site: Site, command: StartEndpoint) -> None:
    run(lambda: site.pipeline.revive(with_sealed(command)))
    assert site.table.handed_over == [inside(command.credentials)]


def test_when_nobody_opens_its_credentials_it_is_to_come_later(site: Site, command: StartEndpoint) -> None:
    site.sealer.away = True
    run(lambda: site.pipeline.revive(with_sealed(command)))
    assert site.table.plans == []
    ((_, told),) = site.notices.sent
    assert "submit again later" in told
    assert site.trail()[-1]["stage"] == "manager"


def test_whoever_maps_to_another_account_now_loses_the_one_that_runs(
    site: Site, command: StartEndpoint, alice: Account, identity_of_alice: MappedIdentity
) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        site.names.accounts["bob"] = dataclasses.replace(alice, name="bob", uid=54322)
        site.mapper.answer = dataclasses.replace(identity_of_alice, username="bob")
        await site.pipeline.handle(numbered(command, 2))

    run(story)
    assert site.events("r2")[-2:] == ["refused", "withdrawn"]
    assert site.table.calls[-2:] == [("refresh", "r2"), ("end", command.name)]
    assert site.notices.sent == [], "not before its end: then the command is looked at again"
    (withdrawn,) = [line for line in site.trail() if line["event"] == "withdrawn"]
    assert withdrawn["account"] == "alice" and "maps to 'bob'" in withdrawn["reason"]


PASSES = Refused("identity", "the mapping program failed", "Try again later.")
ENDS = Refused("identity", "maps to no account", "You are not mapped.", ends_right=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda site: setattr(site.mapper, "answer", PASSES),
        lambda site: setattr(site.mapper, "answer", ValueError("a bug")),
        lambda site: setattr(site.names, "find", fails(Refused("account", "no answer", "Try again later."))),
        lambda site: setattr(site.names, "group_ids", fails(Refused("account", "no answer", "Try again later."))),
        lambda site: setattr(site, "profile", with_unknown_group(site.profile)),
        lambda site: (site.path.rename(site.path.with_name("away")), site.path.mkdir()),
    ],
)
def test_a_repeat_that_is_refused_does_not_touch_what_runs(
    site: Site, command: StartEndpoint, spoil: Callable[[Site], object]
) -> None:
    """The notice of a failed start would fail all that it works on. It is refreshed instead."""

    async def story() -> None:
        await site.pipeline.handle(command)
        spoil(site)
        await site.pipeline.handle(numbered(command, 2))

    run(story)
    assert site.notices.sent == []
    assert site.table.calls[-1] == ("refresh", "r2")


def test_what_another_requester_asks_for_does_not_touch_what_runs(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        site.mapper.answer = ENDS
        await site.pipeline.handle(dataclasses.replace(numbered(command, 2), requester="another"))

    run(story)
    assert site.notices.sent == []
    assert site.table.calls[-1] == ("command came", command.name)
    assert site.events("r2") == ["received", "refused"]


def fails(why: Exception) -> Callable[..., Awaitable[None]]:
    async def failing(*_: object) -> None:
        raise why

    return failing


def with_unknown_group(profile: Profile) -> Profile:
    accounts = dataclasses.replace(profile.config.accounts, deny_groups=("nosuch",))
    return dataclasses.replace(profile, config=dataclasses.replace(profile.config, accounts=accounts))


def test_a_lost_right_ends_all_that_it_concerns_after_several_answers(
    site: Site, command: StartEndpoint, alice: Account
) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        await site.pipeline.handle(numbered(command, 2, "another"))
        site.names.accounts["bob"] = dataclasses.replace(alice, name="bob", uid=54322)
        of_bob = dataclasses.replace(numbered(command, 3, "bob's"), requester="bob")
        site.mapper.answer = dataclasses.replace(site.mapper.answer, username="bob")  # type: ignore[type-var]
        await site.pipeline.handle(of_bob)
        site.mapper.answer = ENDS
        site.mapper.asked.clear()
        await site.pipeline.handle(numbered(command, 4))

    run(story)
    assert site.mapper.asked == ["r4"] * AGREEING
    assert [name for what, name in site.table.calls if what == "end"] == [command.name, "another"]
    assert site.notices.sent == []


def test_one_answer_among_others_ends_nobody(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        answers = iter([ENDS, ENDS, site.mapper.answer])

        async def identify(*_: object) -> MappedIdentity:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        site.mapper.identify = identify  # type: ignore[method-assign]
        await site.pipeline.handle(numbered(command, 2))

    run(story)
    assert site.events("r2") == ["received", "mapped", "refreshed"]


def test_a_name_service_that_knows_nobody_ends_nobody(site: Site, command: StartEndpoint, alice: Account) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        site.names.accounts["bob"] = dataclasses.replace(alice, name="bob", uid=54322)
        mapped, site.mapper.answer = site.mapper.answer, dataclasses.replace(site.mapper.answer, username="bob")  # type: ignore[type-var]
        await site.pipeline.handle(numbered(command, 2, "bob's"))
        site.mapper.answer = mapped
        bob = site.names.accounts.pop("bob")
        site.names.accounts.clear()
        await site.pipeline.handle(numbered(command, 3))
        assert "end" not in [what for what, _ in site.table.calls]
        site.names.accounts["bob"] = bob
        await site.pipeline.handle(numbered(command, 4))

    run(story)
    assert site.table.calls[-1] == ("end", command.name), "others are known, so this one is gone"


def test_a_burst_waits_and_is_not_refused(site: Site, command: StartEndpoint) -> None:
    """200 starts at once; a place is given back with each."""

    async def story() -> None:
        await asyncio.gather(*(site.pipeline.handle(numbered(command, n, f"uep.{n}")) for n in range(200)))

    run(story)
    assert len(site.table.plans) == 200 and site.notices.sent == []


@pytest.mark.parametrize("where", ["name service", "home"])
def test_who_floods_is_refused_and_nobody_else_notices(
    site: Site, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """One account, whose look-up or home hangs, has more commands than the broker sends ahead; another one comes."""
    bob, hangs = Account("bob", 54322, 54322, "", "/home/bob", "/bin/sh", (54322,)), asyncio.Event()

    async def identify(command: StartEndpoint, *_: object) -> MappedIdentity:
        assert isinstance(site.mapper.answer, MappedIdentity)
        return dataclasses.replace(site.mapper.answer, username="bob" if command.requester == "bob" else "alice")

    async def find(username: str) -> Account:
        if where == "name service" and username != "bob":
            await hangs.wait()
        return site.names.accounts[username]

    launch = site.table.launch

    async def hanging(plan: Any, command: StartEndpoint, place: Any) -> UserEndpoint:
        place.at_own_risk()
        if plan.account.name != "bob":
            await hangs.wait()
        return await launch(plan, command, place)

    site.names.accounts["bob"] = bob
    monkeypatch.setattr(site.mapper, "identify", identify)
    monkeypatch.setattr(site.names, "find", find)
    monkeypatch.setattr(site.table, "launch", hanging)

    async def story() -> None:
        window = asyncio.Semaphore(PREFETCH)

        async def comes(number: int, requester: str = "me") -> None:
            try:
                await site.pipeline.handle(
                    dataclasses.replace(command, request_id=f"r{number}", name=f"uep.{number}", requester=requester)
                )
            finally:
                window.release()

        tasks = []
        for number in range(PREFETCH + 100):
            await window.acquire()  # as the broker sends: no more than it has acknowledgements for
            tasks.append(asyncio.create_task(comes(number)))
            await asyncio.sleep(0)
        await window.acquire()
        await comes(9999, "bob")
        assert site.events("r9999")[-1] == "started"
        await aiountil(lambda: sum(not task.done() for task in tasks) == held, "refusals")
        hangs.set()
        await asyncio.gather(*tasks)

    held = MOST_WAITING + (SHARE if where == "name service" else 0)
    run(story)
    assert {text for _, text in site.notices.sent if "no more may. Please submit again later." not in text} == set()
    assert len(site.notices.sent) == PREFETCH + 100 - held


def test_wrong_options_are_told_at_once_although_a_start_would_wait(site: Site, command: StartEndpoint) -> None:
    """What cannot come good does not wait for its minute; it has been a start all the same."""
    site.limit(starts_per_minute_per_user=1)

    async def story() -> None:
        await site.pipeline.handle(command)
        site.renderer.fails = Refused("options", "wrong", "Wrong.")
        await site.pipeline.handle(numbered(command, 2, "another"))

    run(story)
    ((request_id, text),) = site.notices.sent
    assert request_id == "r2" and "Wrong." in text


def test_what_waits_is_given_back_at_once_when_the_manager_stops(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        site.mapper.waits = asyncio.Event()
        waiting = [asyncio.ensure_future(site.pipeline.handle(numbered(command, n, f"uep.{n}"))) for n in range(100)]
        while not site.mapper.asked:
            await asyncio.sleep(0)
        site.pipeline.give_back()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done)

    run(story)
    assert site.notices.sent == []


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
        await site.pipeline.reject(refusal, "r2", plain({"some": "credentials"}))

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


def test_a_revival_is_the_request_once_more(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.revive(command)
        site.mapper.answer = Refused("identity", "not any more", "You are not mapped any more.")
        await site.pipeline.revive(numbered(command, 2, "another"))

    run(story)
    assert site.events() == ["mapped", "started"]
    assert [request_id for request_id, _ in site.notices.sent] == ["r2"]


DEATH = Refusal("running", "killed by signal 9", "Your user endpoint was killed.")


def test_what_cannot_be_told_is_told_later(site: Site, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untold, "FIRST_PAUSE", 0.01)

    async def story() -> None:
        site.kept.requests[command.name] = "r1"
        site.notices.delivered = False
        await site.pipeline.tell(DEATH, command)
        await aiountil(lambda: len(site.notices.sent) == 3, "other attempts")
        assert site.kept.requests, "the next manager may have to do it"
        site.notices.delivered = True
        await aiountil(lambda: not site.kept.requests, "it to be told")
        await site.pipeline.close()

    run(story)
    assert {text for _, text in site.notices.sent} == {"Your user endpoint was killed. (request r1)"}
    assert site.events() == ["refused"], "one decision"


@pytest.mark.parametrize("refused", [True, False], ids=["a command is refused", "a command starts one"])
def test_an_answer_that_was_not_told_is_not_told_to_a_successor(
    site: Site, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    monkeypatch.setattr(untold, "FIRST_PAUSE", 0.05)

    async def story() -> None:
        site.notices.delivered = False
        await site.pipeline.tell(DEATH, command)
        site.notices.delivered = True
        if refused:
            site.mapper.answer = Refused("identity", "not any more", "You are not mapped any more.")
        await site.pipeline.handle(numbered(command, 2))
        await asyncio.sleep(0.2)
        assert not site.pipeline._untold._trying

    run(story)
    assert [request_id for request_id, _ in site.notices.sent] == ["r1", "r2"][: 1 + refused]


def test_one_that_runs_answers_for_what_was_not_told(
    site: Site, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untold, "FIRST_PAUSE", 0.05)

    async def story() -> None:
        site.notices.delivered = False
        await site.pipeline.handle(command)
        running = site.table.endpoints.pop(command.name)
        await site.pipeline.tell(DEATH, command)
        site.table.endpoints[command.name] = running
        await aiountil(lambda: not site.pipeline._untold._trying, "it to be forgotten")

    run(story)
    assert len(site.notices.sent) == 1


@pytest.mark.parametrize("delivered", [True, False])
def test_a_death_is_told_and_kept_for_a_next_manager_when_it_could_not_be(
    site: Site, command: StartEndpoint, delivered: bool
) -> None:
    site.kept.requests[command.name] = "r1"
    site.notices.delivered = delivered
    asyncio.run(site.pipeline.tell(DEATH, command))
    assert site.notices.sent == [("r1", "Your user endpoint was killed. (request r1)")]
    assert site.kept.requests == ({} if delivered else {command.name: "r1"})


def test_nobody_is_started_whose_tasks_a_notice_under_way_would_fail(site: Site, command: StartEndpoint) -> None:
    """The lock is held until the broker has the notice: what a successor takes is not told as failed."""

    async def story() -> None:
        site.notices.waits = asyncio.Event()
        telling = asyncio.ensure_future(site.pipeline.tell(DEATH, command))
        request = asyncio.ensure_future(site.pipeline.handle(numbered(command, 2)))
        await asyncio.sleep(0.05)
        assert site.table.plans == []
        site.notices.waits.set()
        await asyncio.gather(telling, request)

    run(story)
    assert site.events("r2")[-1] == "started"
    assert site.kept.requests == {command.name: "r2"}


def test_a_death_with_a_successor_is_on_record_and_fails_nothing(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.handle(numbered(command, 2))
        await site.pipeline.tell(DEATH, command)

    run(story)
    assert site.events() == ["refused"]
    assert site.notices.sent == []
    assert site.kept.requests == {command.name: "r2"}


def test_a_death_that_a_newer_request_overtakes_is_left_to_that(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        site.mapper.waits = asyncio.Event()
        first = asyncio.ensure_future(site.pipeline.handle(numbered(command, 1, command.name)))
        await asyncio.sleep(0)
        telling = asyncio.ensure_future(site.pipeline.tell(DEATH, numbered(command, 3)))
        await asyncio.sleep(0)
        newer = asyncio.ensure_future(site.pipeline.handle(numbered(command, 2)))
        await telling
        site.mapper.answer = Refused("identity", "not any more", "You are not mapped any more.")
        site.mapper.waits.set()
        await asyncio.gather(first, newer)

    run(story)
    assert site.events("r3") == ["refused"]
    assert [request_id for request_id, _ in site.notices.sent] == ["r1", "r2"]


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


def kept(command: StartEndpoint, uid: int, boot: str = "another") -> Kept:
    """What a manager before a crash has left of alice's."""
    return Kept(command, uid, boot, Process(2**22 + 1, 1, uid))


def test_what_runs_is_kept_for_a_crash(site: Site, command: StartEndpoint) -> None:
    async def story() -> None:
        await site.pipeline.handle(command)
        assert site.kept.requests == {command.name: "r1"}
        await site.pipeline.handle(dataclasses.replace(command, request_id="r2"))
        assert site.kept.requests == {command.name: "r2"}

    asyncio.run(story())


def test_one_of_before_a_crash_is_started_again(site: Site, command: StartEndpoint, alice: Account) -> None:
    asyncio.run(site.pipeline.recover(kept(command, alice.uid)))
    assert site.table.calls[-1] == ("launch", "r1")
    assert site.events() == ["recovering", "mapped", "started"]
    assert site.kept.requests == {command.name: "r1"}


def test_one_that_its_user_has_started_meanwhile_is_left_alone(
    site: Site, command: StartEndpoint, alice: Account
) -> None:
    async def story() -> None:
        await site.pipeline.handle(dataclasses.replace(command, request_id="newer"))
        await site.pipeline.recover(kept(command, alice.uid))

    asyncio.run(story())
    assert site.kept.requests == {command.name: "newer"}
    assert ("refresh", "r1") not in site.table.calls


@pytest.mark.parametrize("delivered", [True, False])
def test_one_whose_user_may_not_have_it_now_is_told_so(
    site: Site, command: StartEndpoint, alice: Account, delivered: bool
) -> None:
    """Mapped elsewhere here; a next manager tries it again when the notice is not delivered."""
    site.kept.requests[command.name] = "r1"
    site.notices.delivered = delivered
    asyncio.run(site.pipeline.recover(kept(command, alice.uid + 1)))
    ((_, told),) = site.notices.sent
    assert "Your mapping to a local account on this system has changed" in told
    assert site.trail()[-1]["stage"] == "account"
    assert site.kept.requests == ({} if delivered else {command.name: "r1"})
    assert not [call for call in site.table.calls if call[0] == "launch"]


def test_refusals_without_end_do_not_fill_the_trail(site: Site, command: StartEndpoint) -> None:
    """An identity without an account tries again and again; what it did is on record, and others' lines are whole."""
    tries = 2000
    answer, site.mapper.answer = site.mapper.answer, ENDS

    async def story() -> None:
        for number in range(tries):
            await site.pipeline.handle(numbered(command, number))
        site.mapper.answer = answer
        await site.pipeline.handle(dataclasses.replace(numbered(command, tries), requester="another"))
        site.decisions.close()

    run(story)
    assert site.path.stat().st_size < 1 << 20
    *lines, counted = site.trail()
    assert [line["event"] for line in lines[-3:]] == ["received", "mapped", "started"], "of another requester"
    assert (counted["event"], counted["identity"], counted["request"]) == ("counted", command.requester, "r1999")
    full = sum(line["event"] == "refused" for line in lines)
    assert full and full + counted["lines"]["refused at stage identity"] == tries
    assert len(site.notices.sent) == tries, "each is told"


def test_refreshes_without_end_neither_and_a_start_is_whole(site: Site, command: StartEndpoint) -> None:
    times = 1000

    async def story() -> None:
        for number in range(times + 1):
            await site.pipeline.handle(numbered(command, number))
        await site.pipeline.handle(numbered(command, times + 1, "uep.another"))
        site.decisions.close()

    run(story)
    lines = site.trail()
    (counted,) = [line for line in lines if line["event"] == "counted"]
    for event in ("received", "refreshed"):
        assert sum(line["event"] == event for line in lines) < times / 2
    assert sum(line["event"] == "refreshed" for line in lines) + counted["lines"]["refreshed"] == times
    assert site.events(f"r{times + 1}") == ["mapped", "started", "counted"], "what is started is never only counted"


def test_nothing_is_only_counted_that_could_not_be_written(site: Site, command: StartEndpoint) -> None:
    """With high assurance a full disk stops a requester with many requests, too."""

    async def story() -> None:
        for number in range(600):
            await site.pipeline.handle(numbered(command, number))
        site.path.rename(site.path.with_suffix(".1"))
        site.path.mkdir()
        with pytest.raises(Refused, match="audit"):
            await site.decisions.decide("starting", "another")
        with pytest.raises(Refused, match="audit"):
            await site.decisions.decide("received", "r601", identity=command.requester)
        site.path.rmdir()
        site.decisions.close()

    run(story)
    assert [line["event"] for line in site.trail()] == ["counted"]


def test_who_has_filled_the_trail_with_tasks_starts_nothing_more(
    site: Site, command: StartEndpoint, alice: Account
) -> None:
    site.limit(audit_mib_per_hour_per_user=1)
    site.budget.spend(alice.uid, 1 << 20)
    run(lambda: site.pipeline.handle(command))
    refused = site.trail()[-1]
    assert (refused["event"], refused["stage"]) == ("refused", "admission")
    assert "limits.audit_mib_per_hour_per_user" in refused["reason"]
    assert "1 MiB" in site.notices.sent[0][1]
    assert ("launch", "r1") not in site.table.calls


KILL = Kill(Kind.KILL_OF, "alice", ended_by("mining", "uid 0"))


def ban(target: str, kind: Kind = Kind.BAN) -> Order:
    return Order(kind, target, "mining", 0, 1, 0)


@pytest.mark.parametrize(
    "give",
    [
        lambda orders: orders.kill(KILL),
        lambda orders: orders.give(ban("alice")),
        lambda orders: orders.give(dataclasses.replace(ban(""), kind=Kind.DRAIN)),
    ],
)
@pytest.mark.parametrize("where", ["mapping", "rendering", "the gate", "exec"])
def test_an_order_is_in_force_wherever_a_start_is(
    site: Site, command: StartEndpoint, alice: Account, where: str, give: Callable[[Orders], object]
) -> None:
    """What has passed the gate when a drain comes is one that runs, and goes on."""
    places: dict[str, tuple[Any, str]] = {"mapping": (site.mapper, "identify"), "rendering": (site.renderer, "render")}
    parts, name = places.get(where, (site.table, "launch"))
    real, drains = getattr(parts, name), False

    async def meanwhile(*arguments: Any) -> Any:
        nonlocal drains
        done = await real(*arguments) if where == "exec" else None
        give(site.orders)
        drains = site.orders.facts()["drain"] is not None
        if where == "the gate":  # which `endpoint_events` asks there
            site.orders.check_start(command, alice)
        return done or await real(*arguments)

    setattr(parts, name, meanwhile)

    async def story() -> None:
        await site.orders.load()
        await site.pipeline.handle(command)
        if where != "exec":
            ((_, text),) = site.notices.sent
            assert "mining" in text and site.events()[-1] == "refused"
        elif not drains:
            assert site.events() == ["received", "mapped", "killed", "started"]
            assert site.table.calls[-1] == ("kill", command.name)
        else:
            assert site.events()[-1] == "started" and site.notices.sent == []
        setattr(parts, name, real)
        site.notices.sent.clear()
        await site.pipeline.handle(numbered(command, 2, "another"))
        assert bool(site.notices.sent) is bool(site.orders.line()), "a kill is for what came before it"

    run(story)


def test_what_runs_of_who_is_banned_is_refreshed_and_a_kill_in_the_midst_stays(
    site: Site, command: StartEndpoint
) -> None:
    async def story() -> None:
        await site.orders.load()
        await site.pipeline.handle(command)
        running = site.table.endpoints[command.name]
        site.orders.give(ban("alice"))
        await site.pipeline.handle(numbered(command, 2))
        assert site.table.calls[-1] == ("refresh", "r2") and site.notices.sent == []
        site.orders.take_back("alice")
        site.mapper.waits = asyncio.Event()
        under_way = asyncio.ensure_future(site.pipeline.handle(numbered(command, 3)))
        while "r3" not in site.mapper.asked:
            await asyncio.sleep(0)
        site.orders.kill(KILL)
        site.table.kill(running, KILL.refusal)
        site.mapper.waits.set()
        await under_way
        assert running.command.request_id == "r3" and running.refusal == KILL.refusal
        await site.pipeline.handle(numbered(command, 4))
        assert running.command.request_id == "r4" and running.refusal is None, "it is started anew"

    run(story)


def test_who_waits_while_another_identity_of_hers_is_banned(site: Site, command: StartEndpoint) -> None:
    """The mapper is asked once more, with the new ban."""
    identify, banned_then = site.mapper.identify, list[object]()

    async def asked(start: StartEndpoint, documents: Any, banned: Any) -> MappedIdentity:
        banned_then.append(list(banned))
        if banned:
            raise Refused.of(next(iter(banned.values())))
        return await identify(start, documents, banned)

    site.mapper.identify = asked  # type: ignore[method-assign]
    render = site.renderer.render

    async def meanwhile(*arguments: Any) -> Any:
        site.orders.give(ban("linked@example.org"))
        return await render(*arguments)

    site.renderer.render = meanwhile  # type: ignore[method-assign]

    async def story() -> None:
        await site.orders.load()
        await site.pipeline.handle(command)

    run(story)
    assert banned_then == [[], ["linked@example.org"]] and site.table.plans == []
    ((_, text),) = site.notices.sent
    assert "may not use" in text
