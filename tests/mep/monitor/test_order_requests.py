"""Orders on the control socket of a manager: carried out, answered, on record, and in force for the next manager."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lab.waiting import aiountil
from mep.cli import asking
from mep.cli.asking import NotObeyed, Obeyed
from mep.monitor.endpoints import record
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.manager import Manager
from mep.monitor.stages import orders_file
from mep.processes.control_protocol import Kind
from mep.processes.status_protocol import MOST_FACTS
from mep.reader import loader
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.start_endpoint import StartEndpoint
from tests.mep.monitor.managers import Site, send

STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo > $0; while :; do sleep 1; done")


@pytest.fixture
def site(tmp_path: Path, profile_directory: Path, identity_of_alice: MappedIdentity, alice: Account) -> Any:
    made = Site(tmp_path, loader.load(profile_directory), identity_of_alice, alice)
    yield made
    made.earlier.close()


async def order(site: Site, kind: Kind, target: str = "", reason: str = "", until: int = 0) -> Obeyed:
    return await asyncio.to_thread(asking.order, site.run_directory, kind, target, reason, until, 60.0)


def renamed(command: StartEndpoint, number: int) -> StartEndpoint:
    return dataclasses.replace(command, name=f"uep.{number}", request_id=f"r{number}")


def test_a_killed_one_is_not_started_again_and_its_user_reads_why(site: Site, command: StartEndpoint) -> None:
    """It had just been asked again, so it would be."""
    pid = site.earlier.start(command, State.RUNNING_ASKED, remembered_for=3600.0)
    other = site.earlier.start(renamed(command, 2))

    async def story(_: Manager) -> None:
        await site.serves()
        done = await order(site, Kind.KILL, command.name, "it fills the disk")
        assert done.kept and done.done["concerned"] == 1 and done.done["left"] == 0
        (ended,) = done.done["user_endpoints"]
        assert (ended["name"], ended["account"], ended["pid"]) == (command.name, "alice", pid)
        assert site.earlier.runs(other)
        with pytest.raises(NotObeyed, match="no user endpoint"):
            await order(site, Kind.KILL, command.name)
        send(signal.SIGUSR1)

    site.serve(story)
    assert site.earlier.wait(pid) == -signal.SIGTERM
    ((request_id, text),) = site.notices.sent
    assert request_id == command.request_id and "it fills the disk" in text and "Submit again" in text
    assert str(site.run_directory) not in text and "uid" not in text
    (killed,) = site.trail("killed")
    assert (killed["pid"], killed["order"], killed["stage"]) == (pid, "control-1", "orders")
    asked = site.trail("asked")[0]
    assert (asked["what"], asked["target"], asked["reason"]) == ("kill", command.name, "it fills the disk")
    assert [line["outcome"] for line in site.trail("answered")] == ["done", "refused"]


def test_a_manager_that_dies_in_the_midst_leaves_the_kill_to_the_next(
    site: Site, command: StartEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is on record with what it concerns, in memory and on the disk."""
    pid = site.earlier.start(command, State.RUNNING_ASKED, remembered_for=3600.0)

    async def story(manager: Manager) -> None:
        await site.serves()
        manager._table._termination.ask = lambda endpoint: send(signal.SIGUSR1)  # type: ignore[method-assign]
        with pytest.raises(asking.NoAnswer, match="ended before"):
            await order(site, Kind.KILL_ALL, "", "maintenance")

    site.serve(story)
    assert site.earlier.runs(pid)
    facts = json.loads((record.folders(site.run_directory)[0] / "state.json").read_text())
    assert "maintenance" in facts["refusal"]["reason_for_user"]
    (kept,) = site.kept.glob("*.json")
    assert json.loads(kept.read_text())["refusal"] == facts["refusal"]

    async def next_story(_: Manager) -> None:
        await site.serves()
        await aiountil(lambda: bool(site.notices.sent), "the answer")
        send(signal.SIGUSR1)

    monkeypatch.setattr("mep.monitor.endpoints.table.STOP_TIMEOUT", 0.1)  # it has been asked, as the next one thinks
    site.serve(next_story)
    assert not site.earlier.runs(pid)
    ((_, text),) = site.notices.sent
    assert "maintenance" in text


def test_after_a_crash_of_the_host_a_killed_one_is_answered_and_not_recovered(
    site: Site, command: StartEndpoint
) -> None:
    site.earlier.start(command, State.RUNNING_ASKED, remembered_for=3600.0)

    async def story(manager: Manager) -> None:
        await site.serves()
        manager._table._termination.ask = lambda endpoint: send(signal.SIGUSR1)  # type: ignore[method-assign]
        with pytest.raises(asking.NoAnswer):
            await order(site, Kind.KILL_OF, "alice", "mining")

    site.serve(story)
    site.earlier.close()
    for file in (*site.run_directory.glob("*/*"), *site.run_directory.glob("*/")):
        file.rmdir() if file.is_dir() else file.unlink()  # as a crash leaves /run

    async def next_story(_: Manager) -> None:
        await site.serves()
        await aiountil(lambda: bool(site.notices.sent), "the answer")
        send(signal.SIGTERM)

    site.serve(next_story)
    ((_, text),) = site.notices.sent
    assert "mining" in text
    assert site.trail("starting") == [] and list(site.kept.glob("*.json")) == []


@pytest.mark.parametrize("grace", [30.0, 0.0])
def test_one_that_does_not_want_to_end_is_killed(
    site: Site, command: StartEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    """Who waits for it is told also when no command is remembered any more."""
    site.profile = site.with_config(site.profile, mu_child_ep_grace_period_s=grace)
    monkeypatch.setattr("mep.monitor.endpoints.table.STOP_TIMEOUT", 0.1)
    pid = site.earlier.start(command, program=(*STUBBORN, str(tmp_path / "deaf")))

    async def story(_: Manager) -> None:
        await site.serves()
        await aiountil((tmp_path / "deaf").exists, "it is deaf")
        done = await order(site, Kind.KILL_OF, "alice")
        assert done.done["concerned"] == 1 and done.done["left"] == 0
        send(signal.SIGUSR1)

    site.serve(story)
    assert site.earlier.wait(pid) == -signal.SIGKILL
    ((_, text),) = site.notices.sent
    assert "The administrators" in text


@pytest.mark.parametrize("target", ["alice", "the requester"])
def test_a_ban_that_ends_what_runs(site: Site, command: StartEndpoint, target: str) -> None:
    target = command.requester if target == "the requester" else target
    pid = site.earlier.start(command, State.RUNNING_ASKED, remembered_for=3600.0)

    async def story(_: Manager) -> None:
        await site.serves()
        assert (await order(site, Kind.BAN, target, "mining")).kept
        assert site.earlier.runs(pid), "on request only"
        done = await order(site, Kind.BAN_AND_END, target, "mining")
        assert done.done["concerned"] == 1
        send(signal.SIGUSR1)

    site.serve(story)
    ((_, text),) = site.notices.sent
    assert "mining" in text and "may not use" in text
    (kept,) = orders_file.read(site.orders)
    assert (kept.kind, kept.target, kept.by) == (Kind.BAN_AND_END, target.lower(), os.getuid())


def test_what_a_new_manager_finds_of_a_banned_user_is_ended(site: Site, command: StartEndpoint) -> None:
    orders_file.write(site.orders, [orders_file.Order(Kind.BAN_AND_END, "alice", "mining", 0, 1, 0)])
    pid = site.earlier.start(command)

    async def story(_: Manager) -> None:
        await site.serves()
        await aiountil(lambda: bool(site.notices.sent), "the answer")
        send(signal.SIGUSR1)

    site.serve(story)
    assert not site.earlier.runs(pid) and "mining" in site.notices.sent[0][1]


def test_a_drain_stays_over_a_restart_and_what_runs_goes_on(site: Site, command: StartEndpoint) -> None:
    pid, until = site.earlier.start(command), int(time.time()) + 3600

    async def story(manager: Manager) -> None:
        await site.serves()
        assert (await order(site, Kind.DRAIN, "", "new scheduler", until)).kept
        await manager.pipeline.handle(renamed(command, 2))
        send(signal.SIGUSR1)

    async def next_story(manager: Manager) -> None:
        await site.serves()
        said = json.loads(site.worker.status.answer())["manager"]
        assert said["orders"]["drain"]["until"] == until and "new scheduler" in said["line"]
        await manager.pipeline.handle(renamed(command, 3))
        assert (await order(site, Kind.UNDRAIN)).done == {"was": True}
        assert (await order(site, Kind.UNDRAIN)).done == {"was": False}
        assert json.loads(site.worker.status.answer())["manager"]["orders"]["drain"] is None
        send(signal.SIGUSR1)

    site.serve(story)
    site.serve(next_story)
    assert [request for request, text in site.notices.sent if "new scheduler" in text] == ["r2", "r3"]
    assert site.earlier.runs(pid) and orders_file.read(site.orders) == []


def test_an_order_that_is_not_on_the_disk_is_told(site: Site) -> None:
    async def story(_: Manager) -> None:
        await site.serves()
        site.orders.touch()
        done = await order(site, Kind.DRAIN, "", "maintenance")
        assert not done.kept and "orders" in done.done["error"]
        assert "drained: maintenance" in site.status.read_text()
        send(signal.SIGTERM)

    site.serve(story)
    assert [line["outcome"] for line in site.trail("answered")] == ["not_kept"]


def test_a_flood_of_orders_holds_up_nobody(site: Site, command: StartEndpoint) -> None:
    async def story(manager: Manager) -> None:
        await site.serves()
        flood = [order(site, Kind.BAN, f"u{number}", "\u2603" * 170) for number in range(100)]
        flood += [order(site, Kind.KILL_ALL) for _ in range(20)]
        flooding = asyncio.gather(*flood)
        await manager.pipeline.handle(renamed(command, 2))
        assert all(done.kept for done in await flooding)
        answer = site.worker.status.answer()
        assert len(answer) <= MOST_FACTS and json.loads(answer)["manager"]["orders"]["banned"] == 100
        send(signal.SIGTERM)

    site.serve(story)
    assert len(orders_file.read(site.orders)) == 100
    assert len(site.trail("asked")) == 120
