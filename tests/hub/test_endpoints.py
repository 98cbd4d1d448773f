"""Managers and user endpoints as rows: who may use them, whether they are alive, what is shown."""

from __future__ import annotations

import time
import uuid

import pytest
from sqlalchemy import update

from hub import endpoints
from hub.store import tables
from hub.web import Forbidden, NotFound
from tests.hub.units import ADMIN, ALICE, BOB, add_manager, add_start, add_user_endpoint, client, new_id, run


@pytest.mark.parametrize(
    ("multi_user", "public", "open_to_bob"), [(True, True, True), (True, False, True), (False, True, False)]
)
def test_who_may_use_and_change_one(store, multi_user, public, open_to_bob):
    admins = [ALICE.identities[1].id]
    manager = run(add_manager(store, multi_user=multi_user, public=public, admins=admins))
    for one in (ADMIN, ALICE):  # its owner, and by a linked identity one of its admins
        assert run(endpoints.own_manager(store, manager, one)).id == manager
        assert run(endpoints.open_manager(store, manager, one)).id == manager
    with pytest.raises(Forbidden):
        run(endpoints.own_manager(store, manager, BOB))
    if open_to_bob:
        assert run(endpoints.open_manager(store, manager, BOB)).id == manager
    else:
        with pytest.raises(Forbidden):
            run(endpoints.open_manager(store, manager, BOB))


def test_one_that_is_not_there(store):
    for read in (endpoints.own_manager, endpoints.open_manager):
        with pytest.raises(NotFound):
            run(read(store, new_id(), ADMIN))


def test_what_is_shown_leaves_its_configuration_out(store):
    manager = run(endpoints.read_manager(store, run(add_manager(store, metadata={"endpoint_config": "secret"}))))
    assert "secret" not in str(endpoints.shown(manager))
    assert endpoints.shown(manager)["owner"] == ADMIN.identity.id
    assert manager.allowed_functions is None
    assert not manager.online
    assert manager.report == {}


@pytest.mark.parametrize(
    ("ago", "period", "online"),
    [(0, 30, True), (74, 30, True), (76, 30, False), (0, 0, False), (0, None, False), (None, 30, False)],
)
def test_it_is_alive_for_two_and_a_half_periods(store, ago, period, online):
    manager = run(add_manager(store))
    at = None if ago is None else time.time() - ago
    run(store.execute(update(tables.endpoint).values(heartbeat_at=at, heartbeat_period=period)))
    assert run(endpoints.read_manager(store, manager)).online is online


def test_the_id_of_a_user_endpoint_is_the_same_for_the_same_options():
    manager, user = new_id(), new_id()
    first = endpoints.user_endpoint_id(manager, user, {"a": 1, "b": {"x": 1, "y": 2}})
    assert str(uuid.UUID(first)) == first
    assert endpoints.user_endpoint_id(manager, user, {"b": {"y": 2, "x": 1}, "a": 1}) == first
    others = [
        endpoints.user_endpoint_id(manager, user, {"a": 2}),
        endpoints.user_endpoint_id(manager, new_id(), {"a": 1, "b": {"x": 1, "y": 2}}),
        endpoints.user_endpoint_id(new_id(), user, {"a": 1, "b": {"x": 1, "y": 2}}),
    ]
    assert len({first, *others}) == 4


def test_starts_are_listed_oldest_first(store):
    manager = run(add_manager(store))
    user_endpoint = run(add_user_endpoint(store, manager, client("x")))
    for at in (5, 3):
        run(add_start(store, user_endpoint, commanded_at=at))
    first, second = run(endpoints.timelines(store, [user_endpoint, new_id()]))[user_endpoint]
    assert (first["commanded_at"], second["commanded_at"]) == (5, 3)
    keys = {"commanded_at", "commands", "first_heartbeat_at", "first_result_at", "ended_at", "error"}
    assert set(first) == keys
