"""Endpoints register, are locked and deleted: in the store and in RabbitMQ, or in neither."""

from __future__ import annotations

import json
import time

import pytest
from sqlalchemy import update

from hub import endpoints, registration, stopping
from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.limits import Limits
from hub.outcomes import Outcomes
from hub.registration import Registrar
from hub.store import tables
from hub.web import ApiError, Invalid, TooLarge
from tests.hub.units import (
    ADMIN,
    ALICE,
    CONFIG,
    StubBroker,
    add_manager,
    add_start,
    add_task,
    add_user_endpoint,
    change,
    new_id,
    rows,
    run,
)
from wire.errors import ConnectionLost
from wire.messages import unpack
from wire.queues import read_source, read_target
from wire.stop_request import HEADERS, KNOWS

BODY = {"endpoint_name": "e", "multi_user": True, "public": True, "metadata": {"endpoint_config": "x"}}


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def registrar(store, broker):
    return Registrar(store, broker, Passwords(store), CONFIG, Outcomes(store, broker), Limits())


def test_what_is_kept_of_a_registration():
    allowed = new_id()
    record = registration.decode({**BODY, "allowed_functions": [allowed.upper()], "more": 1})
    assert record["allowed_functions"] == [allowed]
    assert record["admins"] is None
    assert "more" not in record
    assert registration.decode({"endpoint_name": "e"})["multi_user"] is False


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"high_assurance": True}, "cannot enforce"),
        ({"authentication_policy": "x"}, "authentication_policy: expected a UUID"),
        ({"endpoint_name": "x" * 300}, "endpoint_name: has 300 characters, the most is 256"),
        ({"display_name": "x" * 300}, "display_name: has 300"),
        ({"subscription_uuid": "x" * 300}, "subscription_uuid: has 300"),
        ({"metadata": {"endpoint_config": "x" * 2**20}}, "metadata: has .* the most is 1048576"),
        ({"allowed_functions": [new_id()] * 5001}, "allowed_functions: has 5001 ids"),
        ({"admins": [new_id()] * 5001}, "admins: has 5001 ids"),
        ({"endpoint_name": None}, "endpoint_name: missing"),
        ({"multi_user": "yes"}, "multi_user: wrong type"),
        ({"metadata": []}, "metadata: wrong type"),
        ({"allowed_functions": ["x"]}, "allowed_functions: expected a UUID"),
        ({"admins": {}}, "admins: wrong type"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_field(change, text):
    with pytest.raises((Invalid, TooLarge), match=text):
        registration.decode({**BODY, **change})


def test_a_new_endpoint_gets_an_id_a_queue_and_credentials(store, broker, registrar):
    answer = run(registrar.register(ADMIN, None, registration.decode(BODY)))
    manager = run(endpoints.read_manager(store, answer["endpoint_id"]))
    assert manager.owner == ADMIN.identity.id
    assert broker.calls == [("declare", f"{manager.id}.commands")]
    source = read_source(answer["command_queue_info"], "x")
    assert source.queue == f"{manager.id}.commands"
    assert read_target(answer["heartbeat_queue_info"], "x").routing_key == f"{manager.id}.heartbeats"
    account, password = source.connection_url.removeprefix("amqps://").partition("@")[0].split(":")
    assert account == topology.manager_account(manager.id)
    assert run(Passwords(store).is_valid(account, password))


def test_registering_again_keeps_id_and_owner(store, registrar):
    first = run(registrar.register(ADMIN, None, registration.decode(BODY)))
    known = run(endpoints.read_manager(store, first["endpoint_id"]))
    again = run(registrar.register(ALICE, known, registration.decode({**BODY, "public": False})))
    assert again["endpoint_id"] == first["endpoint_id"]
    now = run(endpoints.read_manager(store, known.id))
    assert (now.owner, now.public) == (ADMIN.identity.id, False)


def test_nothing_is_registered_without_a_broker(store, broker, registrar):
    broker.lose()
    with pytest.raises(ConnectionLost):
        run(registrar.register(ADMIN, None, registration.decode(BODY)))
    assert rows(store, "SELECT * FROM endpoint") == []


def test_a_lock_cuts_off_for_a_minute(store, broker, registrar):
    answer = run(registrar.register(ADMIN, None, registration.decode(BODY)))
    locked_id = answer["endpoint_id"]
    run(
        change(
            store, "UPDATE endpoint SET heartbeat_at = :heartbeat_at, heartbeat_period = 30", heartbeat_at=time.time()
        )
    )
    run(registrar.lock(run(endpoints.read_manager(store, locked_id))))
    locked = run(endpoints.read_manager(store, locked_id))
    assert not locked.online
    assert not run(Passwords(store).exists(topology.manager_account(locked_id)))
    assert broker.calls[-1] == ("delete", f"{locked_id}.commands")
    with pytest.raises(ApiError) as refused:
        run(registrar.register(ADMIN, locked, registration.decode(BODY)))
    assert refused.value.status == 423
    run(change(store, "UPDATE endpoint SET locked_until = :locked_until", locked_until=time.time() - 1))
    run(registrar.register(ADMIN, run(endpoints.read_manager(store, locked_id)), registration.decode(BODY)))


def test_what_is_deleted_fails_its_tasks_and_leaves_nothing_but_them(store, broker, registrar):
    async def scenario():
        answer = await registrar.register(ADMIN, None, registration.decode(BODY))
        user_endpoint = await add_user_endpoint(store, answer["endpoint_id"])
        kept = await add_user_endpoint(store, await add_manager(store))
        await add_start(store, user_endpoint)
        await store.write(lambda db: Passwords(store).give(db, topology.user_endpoint_account(user_endpoint)))
        task, _ = await add_task(store, user_endpoint)
        await registrar.delete(await endpoints.read_manager(store, answer["endpoint_id"]))
        ((_, body),) = broker.sent
        failure = unpack(body)
        assert (failure.task_id, failure.error_details.code) == (task, "ENDPOINT_DELETED")
        assert ("delete", topology.task_queue(user_endpoint)) in broker.calls
        assert ("delete", topology.command_queue(answer["endpoint_id"])) in broker.calls
        assert [row.id for row in rows(store, "SELECT id FROM user_endpoint")] == [kept]
        assert len(rows(store, "SELECT id FROM endpoint")) == 1
        assert rows(store, "SELECT * FROM start") == []
        assert rows(store, "SELECT * FROM password") == []

    run(scenario())


def test_user_endpoints_of_a_deleted_one_are_asked_to_stop_if_they_run_and_know_how(
    store, broker, registrar, monkeypatch
):
    monkeypatch.setattr(stopping, "PATIENCE", 0.3)

    async def scenario():
        manager = await add_manager(store)
        made = [await add_user_endpoint(store, manager) for _ in range(4)]
        running, silent, public, deaf = made
        alive = {"heartbeat_at": time.time(), "heartbeat_period": 30}
        knows = json.dumps({KNOWS: True})
        told = {
            running: {**alive, "report": knows},
            silent: {**alive, "heartbeat_at": 5, "report": knows},
            public: {**alive, "report": "{}"},
            deaf: {**alive, "report": knows},
        }
        for user_endpoint, values in told.items():
            known = tables.user_endpoint
            await store.execute(update(known).where(known.c.id == user_endpoint).values(values))
        broker.waiting[topology.task_queue(deaf)] = (1, 1)  # it goes on reading
        await registrar.delete(await endpoints.read_manager(store, manager))
        asked = [target.routing_key for target, _ in broker.sent if target.properties.get("headers") == HEADERS]
        assert sorted(asked) == sorted(map(topology.task_queue, (running, deaf)))
        assert all(("delete", topology.task_queue(user_endpoint)) in broker.calls for user_endpoint in made)

    run(scenario())


def test_a_client_has_so_many_endpoints(store, broker):
    registrar = Registrar(store, broker, Passwords(store), CONFIG, Outcomes(store, broker), Limits(endpoints=2))
    made = [run(registrar.register(ADMIN, None, registration.decode(BODY)))["endpoint_id"] for _ in range(2)]
    with pytest.raises(ApiError, match="the most is 2") as refused:
        run(registrar.register(ADMIN, None, registration.decode(BODY)))
    assert refused.value.status == 429
    run(registrar.register(ADMIN, run(endpoints.read_manager(store, made[0])), registration.decode(BODY)))
    run(registrar.register(ALICE, None, registration.decode(BODY)))
