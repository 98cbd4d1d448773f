"""The right to run ends when it is taken away: by what a reload changes, and never by what cannot be known for sure."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mep.monitor.audit import AuditTrail
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.orders import Orders
from mep.monitor.stages.rights import Rights
from mep.profile.profile import Profile
from mep.reader import loader
from mep.request.account import Account
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint
from tests.mep.monitor.stubs import MapperHere, StubNameService, StubNotices

ALICE = "d26d2ea1-0a2f-4d30-a1e3-3d0b7a0bd0c5"
PROGRAM = [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/true"]}]


class Site:
    """One user endpoint of alice's, a real mapper and a real trail. `ended` has who was asked to stop."""

    def __init__(self, folder: Path, profile: Profile, command: StartEndpoint, alice: Account) -> None:
        self.profile = profile
        self.ended: list[str] = []
        identities = [{"id": ALICE, "username": "alice@example.org", "status": "used"}]
        command = dataclasses.replace(command, requester=ALICE, identity_set=json.dumps(identities))
        self.endpoint: Any = SimpleNamespace(
            name=command.name,
            account=alice,
            command=command,
            state=State.RUNNING,
            ending="",
            facts=lambda: {"account": "alice"},
        )
        self.names = StubNameService({"alice": alice})
        self.path = folder / "audit.log"
        self.audit = AuditTrail(self.path)
        decisions = Decisions(self.audit, StubNotices(), lambda: "in force")
        self.mapper: Any = MapperHere()
        self.orders = Orders(folder / "orders", lambda: None)
        others: Any = (self.names, decisions, self, self.orders)
        self.rights = Rights(lambda: self.profile, self.mapper, *others)
        self.others: list[Any] = []
        self.map("(.*)@example\\.org")

    def __iter__(self) -> Iterator[Any]:
        return iter([self.endpoint, *self.others])

    def end(self, endpoint: Any, why: str) -> None:
        assert f"(request {endpoint.command.request_id})" in why
        self.ended.append(endpoint.name)
        endpoint.state = State.STOPPING_ASKED

    def map(self, match: str, output: str = "{0}") -> None:
        mapping = {"match": match, "source": "{username}", "output": output}
        self.documents([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [mapping]}])

    def documents(self, documents: object) -> None:
        text = json.dumps(documents)
        self.profile = dataclasses.replace(
            self.profile, mapping=dataclasses.replace(self.profile.mapping, text=text, digest=str(hash(text)))
        )

    def policy(self, **policy: object) -> None:
        accounts = dataclasses.replace(self.profile.config.accounts, **policy)  # type: ignore[arg-type]
        self.profile = dataclasses.replace(
            self.profile, config=dataclasses.replace(self.profile.config, accounts=accounts)
        )

    def withdrawn(self) -> list[str]:
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line["reason"] for line in lines if line["event"] == "withdrawn"]

    async def review(self) -> None:
        self.rights.review()
        assert self.rights._reviewing is not None
        await self.rights._reviewing


@pytest.fixture
def site(tmp_path: Path, profile_directory: Path, command: StartEndpoint, alice: Account) -> Iterator[Site]:
    made = Site(tmp_path, loader.load(profile_directory), command, alice)
    yield made
    made.audit.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda site: site.policy(deny_users=("alice",)), "deny_users"),
        (lambda site: site.policy(allow_users=("bob",)), "allow_users"),
        (lambda site: site.policy(min_uid=60000), "min_uid"),
        (lambda site: site.map("(bob)@example\\.org"), "maps to no account"),
        (lambda site: site.map("(.*)@example\\.org", "bob"), "maps to 'bob'"),
    ],
)
def test_what_a_reload_takes_away(site: Site, edit: Callable[[Site], None], reason: str) -> None:
    async def story() -> None:
        await site.review()
        assert site.ended == []
        edit(site)
        await site.review()
        await site.review()

    run(story)
    assert site.ended == [site.endpoint.name], "once"
    (found,) = site.withdrawn()
    assert reason in found


@pytest.mark.parametrize("key", ["deny_groups", "allow_groups"])
def test_groups(site: Site, alice: Account, key: str) -> None:
    """Decided by the groups that the account had at its start, and the ids that the names have now."""
    gid = alice.gid if key == "deny_groups" else alice.gid + 1

    async def group_ids(names: object) -> dict[str, int | None]:
        return {"staff": gid}

    site.names.group_ids = group_ids  # type: ignore[assignment]
    site.policy(**{key: ("staff",)})
    run(site.review)
    assert site.ended == [site.endpoint.name]


def no_answer(site: Site) -> None:
    async def fails(names: object) -> dict[str, int | None]:
        raise Refused("account", "no answer", "Try again later.")

    site.names.group_ids = fails  # type: ignore[assignment]
    site.policy(deny_groups=("staff",))


@pytest.mark.parametrize(
    "edit",
    [
        lambda site: site.policy(deny_groups=("nosuch",)),
        lambda site: site.policy(allow_groups=("nosuch",)),
        no_answer,
        lambda site: site.documents(PROGRAM),
        lambda site: site.names.accounts.clear(),
    ],
    ids=["unknown group is denied", "unknown group is allowed", "no answer", "mapping program", "accounts are gone"],
)
def test_what_is_not_sure_ends_nobody(site: Site, edit: Callable[[Site], None]) -> None:
    edit(site)
    run(site.review)
    assert site.ended == []


def test_a_grace(site: Site) -> None:
    async def story() -> None:
        site.policy(deny_users=("alice",), withdrawal_grace=60.0)
        await site.review()
        await site.review()
        assert site.ended == [] and len(site.withdrawn()) == 1
        site.policy(deny_users=())
        await site.review()
        assert site.rights._grace == {}, "it may run again"
        site.policy(deny_users=("alice",), withdrawal_grace=0.01)
        await site.review()
        while not site.ended:
            await asyncio.sleep(0.01)

    run(story)


def test_a_grace_is_of_one_and_not_of_its_successor(site: Site) -> None:
    """It ends in its grace, and another one of the same name is started, which has none."""

    async def story() -> None:
        site.policy(deny_users=("alice",), withdrawal_grace=60.0)
        await site.review()
        site.endpoint = SimpleNamespace(**vars(site.endpoint))
        site.policy(withdrawal_grace=0.0)
        await site.review()

    run(story)
    assert site.ended == [site.endpoint.name] and len(site.withdrawn()) == 2


def test_documents_are_asked_even_when_they_hold_programs_elsewhere(site: Site) -> None:
    """The first document that says something decides; only a program that would be reached leaves it open."""
    site.policy(deny_users=("alice",))
    site.documents(PROGRAM)
    run(site.review)
    assert site.ended == [site.endpoint.name], "the policy is sure whatever the mapping would say"


class SlowMapper:
    """Answers none before many are asked, and gives no answer, or a fault of ours, for some."""

    def __init__(self, mapper: Any) -> None:
        self._mapper = mapper
        self._waiting: list[asyncio.Event] = []
        self.most = 0

    async def identify_without_programs(self, command: StartEndpoint, documents: Any, banned: Any) -> Any:
        mine = asyncio.Event()
        self._waiting.append(mine)
        self.most = max(self.most, len(self._waiting))
        asyncio.get_running_loop().call_later(0.05, mine.set)
        await mine.wait()
        self._waiting.remove(mine)
        number = int(command.name.split(".")[1])
        if number % 7 == 1:
            raise Refused("identity", "the mapper was lost", "Try again later.")
        if number % 7 == 2:
            raise RuntimeError("a fault")
        return await self._mapper.identify_without_programs(command, documents, banned)


def test_many_are_looked_at_side_by_side_and_an_answer_that_is_lost_ends_nobody(site: Site) -> None:
    for number in range(1, 200):
        command = dataclasses.replace(site.endpoint.command, name=f"uep.{number}")
        site.others.append(SimpleNamespace(**{**vars(site.endpoint), "name": command.name, "command": command}))
    site.endpoint = site.others.pop()
    site.rights._mapper = site.mapper = SlowMapper(site.mapper)
    site.map("(bob)@example\\.org")
    run(site.review)
    assert sorted(site.ended) == sorted(f"uep.{n}" for n in range(1, 200) if n % 7 not in (1, 2))
    assert site.mapper.most > 10
