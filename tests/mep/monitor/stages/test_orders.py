"""Orders of admins: what is in force, for whom, how long, over a restart; and files that are not what was written."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lab.waiting import aiountil
from mep.monitor.stages import orders_file
from mep.monitor.stages.fair_queue import MOST_WAITING
from mep.monitor.stages.orders import Kill, Orders, ended_by
from mep.monitor.stages.orders_file import MOST, Order
from mep.processes.control_protocol import Kind
from mep.request.account import Account
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint

# From the beginning of all tests on, which may be an hour ago.
LATER = int(time.time()) + 360_000
DRAIN = Order(Kind.DRAIN, "", "the scheduler is upgraded", 0, 1, LATER)
BAN = Order(Kind.BAN, "alice", "mining", 0, 2, 0)


def run(folder: Path, story: Callable[[Orders], Awaitable[None]]) -> None:
    async def whole() -> None:
        orders = Orders(folder, lambda: None)
        await orders.load()
        try:
            await asyncio.wait_for(story(orders), 60)
        finally:
            orders.close()

    asyncio.run(whole())


def deadline(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def refusal(ask: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        ask()
    assert caught.value.refusal.stage == "orders"
    return caught.value


def test_what_stays_is_in_force_after_a_restart(tmp_path: Path, command: StartEndpoint, alice: Account) -> None:
    async def first(orders: Orders) -> None:
        orders.check_start(command, alice)
        orders.give(DRAIN)
        told = refusal(lambda: orders.check_start(command, alice)).refusal
        assert "the scheduler is upgraded" in told.reason_for_user and "UTC" in told.reason_for_user
        orders.check(command, alice)  # what runs goes on
        orders.give(BAN)
        orders.give(dataclasses.replace(BAN, target="bob@example.org", kind=Kind.BAN_AND_END))
        await orders.keep()

    async def second(orders: Orders) -> None:
        told = refusal(lambda: orders.check(command, alice)).refusal
        assert "mining" in told.reason_for_user and not told.ends_right
        (banned,) = orders.banned_identities().items()
        assert banned[0] == "bob@example.org" and banned[1].ends_right
        facts = orders.facts()
        assert facts["drain"] == {"since": 1, "until": LATER, "reason": DRAIN.reason, "by_uid": 0}
        assert facts["banned"] == 2 and facts["bans"][0]["target"] == "alice"  # type: ignore[index]
        assert "drained until" in orders.line() and "2 banned" in orders.line()
        assert orders.take_back("") and orders.take_back("alice") and not orders.take_back("carol")
        orders.check_start(command, alice)
        await orders.keep()

    async def third(orders: Orders) -> None:
        orders.check_start(command, alice)
        assert list(orders.banned_identities()) == ["bob@example.org"]

    for story in (first, second, third):
        run(tmp_path / "orders", story)
    file = tmp_path / "orders" / "orders"
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700


def test_a_ban_by_identity_is_of_who_asks(tmp_path: Path, command: StartEndpoint, alice: Account) -> None:
    async def story(orders: Orders) -> None:
        for target in (command.requester.lower(), command.requester_name.lower()):
            orders.give(dataclasses.replace(BAN, target=target))
            refusal(lambda: orders.check(command, alice))
            assert orders.take_back(target)
            orders.check(command, alice)

    requester = "D26D2EA1-0a2f-4d30-a1e3-3d0b7a0bd0c5"
    command = dataclasses.replace(command, requester=requester, requester_name="Alice@Example.org")
    run(tmp_path, story)


def test_who_has_no_user_name_is_not_banned_by_a_drain(tmp_path: Path, command: StartEndpoint, alice: Account) -> None:
    nameless = dataclasses.replace(command, requester_name="")

    async def story(orders: Orders) -> None:
        orders.give(DRAIN)
        orders.check(nameless, alice)  # what runs goes on
        told = refusal(lambda: orders.check_start(nameless, alice)).refusal
        assert DRAIN.reason in told.reason_for_user

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (dataclasses.replace(DRAIN, until=1), "over"),
        (dataclasses.replace(DRAIN, reason=""), "reason"),
        (dataclasses.replace(BAN, target="not a name"), "neither"),
        (dataclasses.replace(BAN, target="../alice"), "neither"),
        (dataclasses.replace(BAN, target="root"), "neither"),
    ],
)
def test_what_cannot_be_ordered(tmp_path: Path, order: Order, why: str) -> None:
    async def story(orders: Orders) -> None:
        with pytest.raises(ValueError, match=why):
            orders.give(order)
        assert orders.facts() == {"drain": None, "bans": [], "banned": 0}

    run(tmp_path, story)


def test_only_so_many_are_in_force(tmp_path: Path) -> None:
    async def story(orders: Orders) -> None:
        for number in range(MOST):
            orders.give(dataclasses.replace(BAN, target=f"u{number}"))
        with pytest.raises(ValueError, match=str(MOST)):
            orders.give(dataclasses.replace(BAN, target="one_more"))
        orders.give(dataclasses.replace(BAN, target="u7", reason="x" * 512))  # another word on the same
        await orders.keep()

    async def next_story(orders: Orders) -> None:
        assert len(orders.banned_identities()) == 0 and orders.line() == f"{MOST} banned"

    run(tmp_path, story)
    run(tmp_path, next_story)


def test_an_order_ends_by_itself(tmp_path: Path, command: StartEndpoint, alice: Account) -> None:
    told: list[str] = []

    async def story() -> None:
        orders = Orders(tmp_path, lambda: told.append(orders.line()))
        await orders.load()
        orders.give(dataclasses.replace(BAN, until=int(time.time()) + 1))
        assert told[-1] == "1 banned"
        await aiountil(lambda: told[-1] == "", "its end")
        orders.check(command, alice)
        await orders.keep()
        assert orders_file.read(tmp_path) == []
        orders.close()

    asyncio.run(story())


def test_a_start_waits_for_a_drain_that_ends_in_its_patience(tmp_path: Path) -> None:
    async def story(orders: Orders) -> None:
        await orders.drain_over("me", deadline(0))
        orders.give(DRAIN)
        with pytest.raises(Refused):
            await orders.drain_over("me", deadline(3000))
        waiting = asyncio.ensure_future(orders.drain_over("me", deadline(400_000)))
        await aiountil(lambda: orders._waiting["me"] == 1, "it waits")
        orders.give(dataclasses.replace(DRAIN, reason="it takes longer", until=LATER + 100_000))
        with pytest.raises(Refused, match="it takes longer"):
            await waiting
        orders.give(DRAIN)
        waiting = asyncio.ensure_future(orders.drain_over("me", deadline(400_000)))
        await aiountil(lambda: orders._waiting["me"] == 1, "it waits")
        orders.take_back("")
        await waiting
        orders.give(dataclasses.replace(DRAIN, until=int(time.time()) + 1))
        await orders.drain_over("me", deadline(60))
        orders.give(dataclasses.replace(DRAIN, until=0))
        with pytest.raises(Refused):
            await orders.drain_over("me", deadline(10**9))
        assert not orders._waiting

    run(tmp_path, story)


def test_who_floods_does_not_fill_the_window_of_the_broker(tmp_path: Path) -> None:
    async def story(orders: Orders) -> None:
        orders.give(DRAIN)
        waiting = [asyncio.ensure_future(orders.drain_over("me", deadline(400_000))) for _ in range(MOST_WAITING)]
        await aiountil(lambda: orders._waiting["me"] == MOST_WAITING, "they wait")
        with pytest.raises(Refused):
            await orders.drain_over("me", deadline(400_000))
        other = asyncio.ensure_future(orders.drain_over("another", deadline(400_000)))
        await aiountil(lambda: orders._waiting["another"] == 1, "another one waits")
        orders.take_back("")
        await asyncio.gather(*waiting, other)

    run(tmp_path, story)


def test_a_kill_is_for_requests_that_came_before(tmp_path: Path, command: StartEndpoint, alice: Account) -> None:
    async def story(orders: Orders) -> None:
        ended = ended_by("too loud", "uid 0")
        later = dataclasses.replace(command, request_id="r2")
        for kind, target in ((Kind.KILL, command.name), (Kind.KILL_OF, "alice"), (Kind.KILL_ALL, "")):
            with orders.under_way(command):
                assert orders.is_under_way(command.name) and not orders.is_under_way("another")
                orders.check_start(command, alice)
                orders.kill(Kill(kind, target, ended))
                assert "too loud" in refusal(lambda: orders.check_start(command, alice)).refusal.reason_for_user
                with orders.under_way(later):
                    orders.check_start(later, alice)
            with orders.under_way(command):
                orders.kill(Kill(Kind.KILL, "another", ended))
                orders.kill(Kill(Kind.KILL_OF, "bob", ended))
                orders.check_start(command, alice)
        assert not orders._kills and not orders._under_way

    run(tmp_path, story)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "link":
        path.symlink_to("/etc/passwd")
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    else:
        changed = bytearray(data)
        changed[data.index(b"alice")] ^= 1
        made = {"cut": data[:-1], "empty": b"", "flipped": bytes(changed), "text": b"banned: [alice]\n"}
        path.write_bytes(made.get(how, data))
    if how == "of others":
        path.chmod(0o666)


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "text", "link", "pipe", "folder", "of others"])
def test_a_file_that_cannot_be_believed_starts_nothing(
    tmp_path: Path, command: StartEndpoint, alice: Account, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody who was banned comes in, and nothing is written over it."""

    async def first(orders: Orders) -> None:
        orders.give(BAN)
        await orders.keep()

    async def second(orders: Orders) -> None:
        told = refusal(lambda: orders.check_start(command, dataclasses.replace(alice, name="bob"))).refusal
        assert str(tmp_path) not in told.reason_for_user
        with pytest.raises(Refused):
            await orders.drain_over("me", deadline(10**9))
        orders.check(command, alice)  # what runs goes on
        for change in (lambda: orders.give(DRAIN), lambda: orders.take_back("")):
            with pytest.raises(ValueError, match="Move that file away"):
                change()
        await orders.keep()
        assert "nothing is started" in orders.line() and str(file) in orders.line()

    run(tmp_path, first)
    file = orders_file.path(tmp_path)
    damage(file, how)
    before = os.lstat(file)
    run(tmp_path, second)
    assert os.lstat(file) == before
    assert [line.levelname for line in caplog.records if str(file) in line.message] == ["CRITICAL"]


def test_a_disk_that_cannot_be_written_is_told_and_the_order_is_in_force(
    tmp_path: Path, command: StartEndpoint, alice: Account
) -> None:
    async def story(orders: Orders) -> None:
        (tmp_path / "orders").touch()  # no folder
        orders.give(BAN)
        with pytest.raises(OSError):
            await orders.keep()
        refusal(lambda: orders.check(command, alice))
        (tmp_path / "orders").unlink()
        await orders.keep()
        assert orders_file.read(tmp_path / "orders") == [BAN]

    run(tmp_path / "orders", story)
