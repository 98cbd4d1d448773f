"""What is over is forgotten, what is not stays, and a task that nobody will run ends."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import insert

from hub.amqp.passwords import Passwords
from hub.outcomes import Outcomes
from hub.store import tables
from hub.sweeper import KEEP, LOST, Sweeper
from tests.hub.units import StubBroker, add_manager, add_start, add_task, add_user_endpoint, change, rows, run
from wire.errors import ConnectionLost
from wire.messages import unpack

TABLES = ("token", "refresh_token", "code", "session", "password", "task", "task_group", "start", "user_endpoint")


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def sweeper(store, broker):
    return Sweeper(store, Passwords(store), Outcomes(store, broker))


def counts(store):
    return {table: len(rows(store, f"SELECT * FROM {table}")) for table in TABLES}


def test_what_is_over_is_forgotten(store, sweeper):
    async def scenario():
        now = time.time()
        for expires in (now + 60, now - 60):
            mark = str(expires).encode()
            await store.execute(
                insert(tables.token).values(hash=mark, client="c", resource_server="s", expires=expires)
            )
            await store.execute(insert(tables.password).values(account="a", hash=mark, expires=expires))
            its = {"hash": mark, "client": "c", "expires": expires}
            login = {**its, "login": "l", "app": "a", "scope": "s"}
            code = {"challenge": "c", "redirect_uri": "r", "offline": True, "authenticated_at": 0.0}
            await store.execute(insert(tables.session).values(**its, authenticated_at=0.0))
            await store.execute(insert(tables.refresh_token).values(**login, resource_server="s"))
            await store.execute(insert(tables.code).values(**login, **code))
        manager = await add_manager(store)
        user_endpoint = await add_user_endpoint(store, manager)
        await change(store, "UPDATE user_endpoint SET heartbeat_at = :heartbeat_at", heartbeat_at=now)
        for ended in (None, now - KEEP + 60, now - KEEP - 60):
            task, _ = await add_task(store, user_endpoint)
            await change(store, "UPDATE task SET ended_at = :ended_at WHERE id = :id", ended_at=ended, id=task)
            await add_start(store, user_endpoint, ended_at=ended)
        await add_start(store, await add_user_endpoint(store, manager))  # nobody has used it for long
        await sweeper.sweep()

    run(scenario())
    once = {"token": 1, "refresh_token": 1, "code": 1, "session": 1, "password": 1, "user_endpoint": 1}
    assert counts(store) == {**once, "task": 2, "task_group": 2, "start": 2}


def test_a_task_that_nobody_will_run_ends(store, broker, sweeper):
    async def scenario():
        manager = await add_manager(store)
        alive = await add_user_endpoint(store, manager)
        await change(store, "UPDATE user_endpoint SET heartbeat_at = :heartbeat_at", heartbeat_at=time.time())
        lost = await add_user_endpoint(store, manager)
        await add_task(store, alive)
        await add_task(store, lost)
        broker.lose()
        with pytest.raises(ConnectionLost):
            await sweeper.sweep()
        return lost

    lost = run(scenario())
    (ended,) = rows(store, "SELECT * FROM task WHERE ended_at IS NOT NULL")
    assert ended.user_endpoint == lost
    assert unpack(ended.result).error_details.code == LOST


def test_a_client_keeps_so_many_tokens(store, sweeper, monkeypatch):
    monkeypatch.setattr("hub.sweeper.MOST_TOKENS", 2)
    later = time.time() + 60

    async def scenario():
        for client, count in (("a", 5), ("b", 1)):
            for number in range(count):
                its = {"hash": f"{client}{number}".encode(), "client": client, "expires": later + number}
                await store.execute(insert(tables.token).values(resource_server="s", **its))
        await sweeper.sweep()

    run(scenario())
    assert {bytes(row.hash) for row in rows(store, "SELECT hash FROM token")} == {b"a3", b"a4", b"b0"}
