"""Status reports: who is alive, who could not start, whose start is due again, and what strangers write."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from hub import commands as commands_module
from hub import endpoints
from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.commands import Commands
from hub.failed_starts import START_FAILED, FailedStarts
from hub.heartbeats import Heartbeats
from hub.outcomes import Outcomes
from hub.shared_lock import SharedLock
from hub.stopping import Stopper
from tests.hub.units import (
    ALICE,
    CLIENTS,
    CONFIG,
    StubBroker,
    add_manager,
    add_start,
    add_task,
    add_user_endpoint,
    change,
    from_endpoint,
    new_id,
    one,
    run,
)
from wire.failure_notice import failure_notice
from wire.messages import Result, StatusReport, pack, unpack
from wire.stop_request import HEADERS, KNOWS


class Site:
    """The handler with its real neighbours, a manager and its user endpoint."""

    def __init__(self, store):
        self.store = store
        self.broker = StubBroker()
        self.passwords = passwords = Passwords(store)
        self.commands = Commands(store, self.broker, passwords, CONFIG, Callers(store, CLIENTS))
        outcomes, submissions = Outcomes(store, self.broker), SharedLock()
        failed_starts = FailedStarts(store, self.broker, outcomes, submissions)
        self.stopper = Stopper(store, self.broker, outcomes, submissions)
        self.heartbeats = Heartbeats(store, passwords, self.commands, failed_starts, self.broker)

    async def set_up(self):
        self.manager = await add_manager(self.store)
        self.user_endpoint = await add_user_endpoint(self.store, self.manager)

    async def report(self, sender, **state):
        await self.receive(sender, pack(StatusReport(sender, state)))

    async def receive(self, sender, *bodies):
        await self.heartbeats.on_reports([from_endpoint(sender, topology.HEARTBEATS, body) for body in bodies])

    def row(self, table="user_endpoint"):
        return one(self.store, f"SELECT * FROM {table}")


@pytest.fixture
def site(store):
    made = Site(store)
    run(made.set_up())
    return made


def test_a_manager_that_reports_is_online_with_its_report(site):
    run(site.report(site.manager, heartbeat_period=30, word="x"))
    manager = run(endpoints.read_manager(site.store, site.manager))
    assert manager.online
    assert manager.report == {"heartbeat_period": 30, "word": "x"}
    run(site.report(site.manager, heartbeat_period=0))
    assert not run(endpoints.read_manager(site.store, site.manager)).online


def test_a_manager_that_comes_back_is_told_of_tasks_that_wait(site):
    async def scenario():
        await add_task(site.store, site.user_endpoint)
        site.broker.waiting[topology.task_queue(site.user_endpoint)] = (1, 0)
        await site.report(site.manager, heartbeat_period=0)
        assert site.broker.sent == [], "it says goodbye"
        await site.report(site.manager, heartbeat_period=30)
        assert len(site.broker.sent_to(topology.command_queue(site.manager))) == 1

    run(scenario())


def test_the_first_heartbeat_of_a_start_is_on_its_timeline(site):
    async def scenario():
        await add_start(site.store, site.user_endpoint)
        for _ in range(2):
            await site.report(site.user_endpoint, heartbeat_period=30, active=True)
            seen.append(site.row("start").first_heartbeat_at)

    seen = []
    run(scenario())
    assert seen[0] is not None
    assert seen[0] == seen[1]
    assert endpoints.is_online(site.row())


def test_passwords_in_use_are_renewed(site):
    async def scenario():
        account = topology.user_endpoint_account(site.user_endpoint)
        password = await site.store.write(lambda db: site.passwords.give(db, account))
        await Passwords(site.store).is_valid(account, password)
        await change(site.store, "UPDATE password SET expires = :expires", expires=time.time() + 60)
        await site.report(site.user_endpoint, heartbeat_period=30)

    run(scenario())
    assert site.row("password").expires > time.time() + 6 * 86400


def test_a_failed_start_fails_what_waits_with_its_words(site, caplog):
    caplog.set_level("INFO")

    async def scenario():
        await add_start(site.store, site.user_endpoint)
        task, _ = await add_task(site.store, site.user_endpoint)
        await site.receive(
            site.user_endpoint, failure_notice(site.user_endpoint, "no \ud800\0 \x1b[2J account\n" * 1000)
        )
        return task

    task = run(scenario())
    queue = topology.task_queue(site.user_endpoint)
    assert site.broker.calls == [("declare", queue), ("read alone", queue), ("purge", queue)]
    ((_, body),) = site.broker.sent
    failure = unpack(body)
    assert (failure.task_id, failure.error_details.code) == (task, START_FAILED)
    assert failure.error_details.user_message.startswith("no ?? \x1b[2J account\n")
    assert site.row("start").error == failure.error_details.user_message
    assert not endpoints.is_online(site.row())
    assert all(line.isprintable() and len(line) < 1200 for line in caplog.messages)


def test_a_goodbye_ends_the_start_and_what_still_waits_is_commanded_again(site, monkeypatch):
    monkeypatch.setattr(commands_module, "REPEAT_AFTER", 0.01)

    async def scenario():
        await add_start(site.store, site.user_endpoint)
        await add_task(site.store, site.user_endpoint)
        site.broker.waiting[topology.task_queue(site.user_endpoint)] = (1, 0)
        await site.report(site.user_endpoint, heartbeat_period=30, active=False)
        assert site.row("start").ended_at is not None
        assert site.row("start").error is None
        await asyncio.gather(*site.commands._soon)
        return json.loads(site.broker.sent_to(topology.command_queue(site.manager))[0])

    assert run(scenario())["kwargs"]["amqp_creds"]["endpoint_id"] == site.user_endpoint
    assert not endpoints.is_online(site.row())


@pytest.mark.parametrize("period", [None, "30", -1, 0, 86401, 10**400, [], True])
def test_a_period_that_is_not_believed(site, period):
    run(site.report(site.user_endpoint, heartbeat_period=period))
    assert site.row().heartbeat_period == (1 if period is True else 0)


def test_who_was_stopped_and_comes_back_is_asked_again(site):
    """Until it has said goodbye, or its user has submitted again; who does not know the message is left alone."""

    async def play():
        queue = topology.task_queue(site.user_endpoint)

        def asked():
            return [target.properties["headers"] for target, _ in site.broker.sent if target.routing_key == queue]

        await site.report(site.user_endpoint, heartbeat_period=30, **{KNOWS: True})
        assert asked() == [], "nobody wants it to stop"
        await site.stopper.stop(ALICE, site.user_endpoint)
        assert asked() == [dict(HEADERS)]
        await site.report(site.user_endpoint, active=False, heartbeat_period=30, **{KNOWS: True})
        assert len(asked()) == 1
        await site.report(site.user_endpoint, heartbeat_period=30, **{KNOWS: True})
        assert asked() == [dict(HEADERS)] * 2
        await site.report(site.user_endpoint, heartbeat_period=30)
        assert len(asked()) == 2
        await change(site.store, "UPDATE user_endpoint SET commanded_at = :now", now=time.time())
        await site.report(site.user_endpoint, heartbeat_period=30, **{KNOWS: True})
        assert len(asked()) == 2, "she has submitted again"

    run(play())


def test_nobody_speaks_for_another_and_nonsense_harms_nobody(site, caplog):
    stranger = new_id()
    forged = pack(StatusReport(site.user_endpoint, {"heartbeat_period": 30}))

    async def scenario():
        await site.receive(stranger, forged, b"", b"\x01{", pack(Result(new_id(), "x")))
        await site.report(stranger, heartbeat_period=30)
        assert site.row().heartbeat_at is None
        await site.receive(site.user_endpoint, b"nonsense", forged)

    run(scenario())
    assert endpoints.is_online(site.row())
    assert sum("Dropped" in line for line in caplog.messages) == 6
