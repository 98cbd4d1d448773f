"""Start commands: one start for each time that a user endpoint is needed, told again while tasks wait for it."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from hub import commands as module
from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.commands import MOST_STARTS, Commands
from tests.hub.units import (
    ALICE,
    CLIENTS,
    CONFIG,
    StubBroker,
    add_manager,
    add_task,
    add_user_endpoint,
    change,
    rows,
    run,
)
from wire.errors import ConnectionLost
from wire.queues import read_credentials


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def commands(store, broker):
    return Commands(store, broker, Passwords(store), CONFIG, Callers(store, CLIENTS))


def starts(store):
    return [(row.commands, row.ended_at) for row in rows(store, "SELECT * FROM start ORDER BY rowid")]


async def write_down(store, commands, user_endpoint):
    return await store.write(lambda db: commands.write_down(db, user_endpoint, time.time()))


def test_a_start_is_noted_once_until_it_is_over(store, commands):
    async def scenario():
        user_endpoint = await add_user_endpoint(store, await add_manager(store))
        for _ in range(2):
            await write_down(store, commands, user_endpoint)
        assert starts(store) == [(2, None)]
        await change(store, "UPDATE start SET ended_at = 5")
        await write_down(store, commands, user_endpoint)
        assert starts(store) == [(2, 5), (1, None)]

    run(scenario())


def test_one_that_checked_in_and_fell_silent_is_started_anew(store, commands):
    async def scenario():
        user_endpoint = await add_user_endpoint(store, await add_manager(store))
        await write_down(store, commands, user_endpoint)
        await change(store, "UPDATE start SET first_heartbeat_at = 1")
        await change(
            store,
            "UPDATE user_endpoint SET heartbeat_period = 30, heartbeat_at = :heartbeat_at",
            heartbeat_at=time.time(),
        )
        await write_down(store, commands, user_endpoint)
        assert starts(store) == [(2, None)], "it is alive"
        await change(store, "UPDATE user_endpoint SET heartbeat_at = 1")
        await write_down(store, commands, user_endpoint)
        assert starts(store) == [(2, None), (1, None)]

    run(scenario())


def test_so_many_starts_of_one_are_remembered(store, commands):
    async def scenario():
        manager = await add_manager(store)
        other, failing = await add_user_endpoint(store, manager), await add_user_endpoint(store, manager)
        await write_down(store, commands, other)
        for _ in range(MOST_STARTS + 5):
            await write_down(store, commands, failing)
            await change(store, "UPDATE start SET ended_at = 1 WHERE user_endpoint = :which", which=failing)
        assert len(starts(store)) == MOST_STARTS + 1

    run(scenario())


def test_the_command_has_what_a_manager_needs(store, broker, commands):
    async def scenario():
        manager = await add_manager(store)
        user_endpoint = await add_user_endpoint(store, manager)
        password = await write_down(store, commands, user_endpoint)
        assert await Passwords(store).is_valid(topology.user_endpoint_account(user_endpoint), password)
        await commands.send(user_endpoint, password)
        return manager, user_endpoint, password

    manager, user_endpoint, password = run(scenario())
    ((target, body),) = broker.sent
    assert target.routing_key == f"{manager}.commands"
    assert target.properties["expiration"] == "120000"
    assert abs(target.properties["timestamp"] - time.time()) < 60
    command = json.loads(body)
    assert command["globus_username"] == "alice@example.org"
    assert [entry["id"] for entry in command["globus_identity_set"]] == [i.id for i in ALICE.identities]
    assert command["kwargs"]["name"] == f"uep.{manager}.{user_endpoint}"
    assert command["kwargs"]["user_opts"] == {"a": 1}
    creds = read_credentials(command["kwargs"]["amqp_creds"])
    assert creds.endpoint_id == user_endpoint
    account = f"amqps://uep.{user_endpoint}:{password}@broker.example.org:5671/%2F"
    assert {creds.tasks.connection_url, creds.results.connection_url, creds.heartbeats.connection_url} == {account}


def test_a_manager_that_is_away_and_a_client_that_is_no_more(store, broker, commands):
    async def scenario():
        manager = await add_manager(store)
        user_endpoint = await add_user_endpoint(store, manager)
        broker.unroutable = {f"{manager}.commands"}
        await commands.send(user_endpoint, "pw")
        broker.unroutable = set()
        await Commands(store, broker, Passwords(store), CONFIG, Callers(store, {})).send(user_endpoint, "pw")
        await commands.send("unknown", "pw")
        assert broker.sent == []
        broker.lose()
        with pytest.raises(ConnectionLost):
            await commands.send(user_endpoint, "pw")

    run(scenario())


def test_only_who_is_gone_while_tasks_wait_is_commanded_again(store, broker, commands):
    async def scenario():
        manager = await add_manager(store)
        gone, reading, idle, just_told = [await add_user_endpoint(store, manager) for _ in range(4)]
        elsewhere = await add_user_endpoint(store, await add_manager(store))
        for user_endpoint in (gone, reading, just_told, elsewhere):
            await add_task(store, user_endpoint)
            broker.waiting[topology.task_queue(user_endpoint)] = (1, int(user_endpoint == reading))
        broker.waiting[topology.task_queue(idle)] = (1, 0)
        await change(
            store,
            "UPDATE user_endpoint SET commanded_at = :commanded_at WHERE id = :id",
            commanded_at=time.time(),
            id=just_told,
        )
        await commands.revive(manager)
        return gone

    gone = run(scenario())
    (body,) = [body for _, body in broker.sent]
    assert json.loads(body)["kwargs"]["amqp_creds"]["endpoint_id"] == gone


def test_who_says_goodbye_is_looked_after_a_little_later(store, broker, commands, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "REPEAT_AFTER", 0.01)

    async def scenario():
        manager = await add_manager(store)
        user_endpoint = await add_user_endpoint(store, manager)
        await add_task(store, user_endpoint)
        broker.waiting[topology.task_queue(user_endpoint)] = (1, 0)
        commands.revive_soon(manager)
        assert broker.sent == [], "not at once: it still reads its queue"
        await asyncio.gather(*commands._soon)
        assert len(broker.sent) == 1
        await change(store, "UPDATE user_endpoint SET commanded_at = 0")
        broker.lose()
        commands.revive_soon(manager)
        await asyncio.gather(*commands._soon)

    run(scenario())
    assert "until its next heartbeat: not connected to RabbitMQ" in caplog.messages[-1]
