"""Endpoints by REST: who sees and changes which, and what is said of a user endpoint."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from hub import endpoints
from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.commands import Commands
from hub.limits import Limits, Turns
from hub.outcomes import Outcomes
from hub.projects import Projects
from hub.registration import Registrar
from hub.routes.endpoints import PART, EndpointRoutes
from hub.shared_lock import SharedLock
from hub.stopping import Stopper
from hub.store import tables
from hub.submission import Submitter
from hub.tokens import Tokens
from tests.hub.units import (
    ADMIN,
    ALICE,
    BOB,
    CLIENTS,
    CONFIG,
    Rest,
    StubBroker,
    add_function,
    add_manager,
    add_start,
    add_user_endpoint,
    new_id,
    one,
    run,
)

BODY = {"endpoint_name": "e", "multi_user": True, "public": True, "metadata": {"hostname": "h", "endpoint_config": "x"}}


@pytest.fixture
def broker():
    return StubBroker()


@pytest.fixture
def rest(store, broker):
    tokens = Tokens(store, Callers(store, CLIENTS), Turns(Limits()))
    registrar = Registrar(store, broker, Passwords(store), CONFIG, Outcomes(store, broker), Limits())
    submitter = Submitter(
        store,
        broker,
        Commands(store, broker, Passwords(store), CONFIG, Callers(store, CLIENTS)),
        Limits(),
        SharedLock(),
    )
    stopper = Stopper(store, broker, Outcomes(store, broker), SharedLock())
    return Rest(EndpointRoutes(store, tokens, Projects(store), registrar, submitter, stopper).routes(), store)


@pytest.fixture
def registered(rest):
    """The id of a public endpoint of the admin's."""
    answer = run(rest("POST", "/v3/endpoints", ADMIN, body=BODY))
    assert answer.status == 200
    return answer.json["endpoint_id"]


def test_registering_again_is_its_owners_business(rest, registered):
    path = f"/v3/endpoints/{registered}"
    assert run(rest("PUT", path, ADMIN, body={**BODY, "public": False})).json["endpoint_id"] == registered
    assert run(rest("PUT", path, ALICE, body=BODY)).status == 403
    assert run(rest("PUT", f"/v3/endpoints/{new_id()}", ADMIN, body=BODY)).status == 404
    assert run(rest("PUT", path, ADMIN, body={})).status == 422


def test_one_finds_ones_own_and_all_that_are_public(rest, registered):
    def listed(caller, role=""):
        return [e["uuid"] for e in run(rest("GET", f"/v2/endpoints?role={role}", caller)).json]

    private = run(rest("POST", "/v2/endpoints", ALICE, body={**BODY, "public": False})).json["endpoint_id"]
    assert listed(ADMIN) == listed(BOB, "any") == [registered]
    assert listed(BOB) == []
    assert listed(ALICE) == [private]
    assert listed(ALICE, "any") == [registered, private]


def test_an_admin_of_an_endpoint_finds_it_too(rest, store):
    named = run(add_manager(store, public=False, admins=[new_id(), BOB.identity.id]))
    for role in ("", "any"):
        path = f"/v2/endpoints?role={role}"
        assert [e["uuid"] for e in run(rest("GET", path, BOB)).json] == [named]
        assert run(rest("GET", path, ALICE)).json == []


def test_there_may_be_any_number(rest, store):
    """Each once, in the order of their registration, also where several were registered in the same moment."""
    made = [f"{number % 7:08d}-0000-4000-8000-{number:012d}" for number in range(1200)]
    record = {"endpoint_name": "e", "multi_user": True, "public": True, "metadata": {}}

    def add(db):
        for number, endpoint in enumerate(made):
            endpoints.keep(db, endpoint, BOB.identity.id, record)
            at = {"registered_at": number // 100}
            db.execute(update(tables.endpoint).where(tables.endpoint.c.id == endpoint).values(at))

    run(store.write(add))
    order = [each for first in range(0, 1200, 100) for each in sorted(made[first : first + 100])]
    for caller, role in ((BOB, ""), (ALICE, "any")):
        listed = run(rest("GET", f"/v2/endpoints?role={role}", caller)).json
        assert [each["uuid"] for each in listed] == order
    assert run(rest("GET", "/v2/endpoints", ALICE)).json == []


def test_the_configuration_is_shown_to_who_runs_it(rest, registered):
    path = f"/v2/endpoints/{registered}"
    mine, theirs = run(rest("GET", path, ADMIN)).json, run(rest("GET", path, BOB)).json
    assert (mine["endpoint_config"], mine["metadata"]["endpoint_config"]) == ("x", "x")
    assert theirs["hostname"] == "h"
    assert "endpoint_config" not in theirs
    assert "endpoint_config" not in theirs["metadata"]


def test_one_that_is_not_public_is_used_by_who_knows_its_id(rest, store):
    """The flag "does not control access", says the public client: the manager's mapping does."""
    private = run(add_manager(store, public=False))
    function = new_id()
    run(add_function(store, function, public=True))
    assert run(rest("GET", f"/v2/endpoints/{private}/status", BOB)).status == 200
    answer = run(rest("POST", f"/v3/endpoints/{private}/submit", BOB, body={"tasks": {function: ["args"]}}))
    assert answer.status == 200
    assert run(rest("GET", "/v2/endpoints?role=any", BOB)).json == []


def test_metadata_never_replaces_what_the_hub_says(rest):
    lies = {"owner": ALICE.identity.id, "uuid": new_id(), "name": "site", "public": False, "metadata": {}, "a": 1}
    body = {**BODY, "metadata": {**BODY["metadata"], **lies}}
    endpoint = run(rest("POST", "/v3/endpoints", BOB, body=body)).json["endpoint_id"]
    shown = run(rest("GET", f"/v2/endpoints/{endpoint}", ALICE)).json
    assert (shown["owner"], shown["uuid"], shown["name"]) == (BOB.identity.id, endpoint, "e")
    assert shown["public"] is True
    assert shown["metadata"] == {"hostname": "h"}
    assert "a" not in shown


@pytest.mark.parametrize(
    ("method", "suffix"), [("DELETE", ""), ("POST", "/lock"), ("GET", "/status"), ("GET", "")], ids=lambda v: v or "-"
)
def test_one_for_a_single_user_is_closed_to_others(rest, store, method, suffix):
    private = run(add_manager(store, multi_user=False))
    assert run(rest(method, f"/v2/endpoints/{private}{suffix}", BOB)).status == 403
    assert run(rest(method, f"/v2/endpoints/{private}{suffix}")).status == 401
    assert run(rest(method, f"/v2/endpoints/{private}{suffix}", ADMIN)).json


def test_status_of_a_manager(rest, store, registered):
    path = f"/v2/endpoints/{registered}/status"
    assert run(rest("GET", path, BOB)).json == {"status": "offline", "details": {}}
    at = {"heartbeat_at": time.time(), "heartbeat_period": 30, "report": '{"a": 1}'}
    run(store.execute(update(tables.endpoint).values(at)))
    assert run(rest("GET", path, BOB)).json == {"status": "online", "details": {"a": 1}}


def test_a_user_endpoint_is_shown_to_its_user_and_to_who_runs_its_manager(rest, store, registered):
    user_endpoint = run(add_user_endpoint(store, registered))
    run(add_start(store, user_endpoint, commanded_at=5))
    status, timeline = f"/v2/endpoints/{user_endpoint}/status", f"/hub/v1/endpoints/{user_endpoint}/timeline"
    for caller in (ALICE, ADMIN):
        assert run(rest("GET", status, caller)).json["status"] == "offline"
        assert run(rest("GET", timeline, caller)).json["starts"][0]["commanded_at"] == 5
    for path in (status, timeline):
        assert run(rest("GET", path, BOB)).status == 403


def test_the_timeline_of_a_manager_has_all_of_its_user_endpoints(rest, store, registered):
    made = [run(add_user_endpoint(store, registered)) for _ in range(PART + 1)]
    for at in (1, 2):
        run(add_start(store, made[0], commanded_at=at))
    told = run(rest("GET", f"/hub/v1/endpoints/{registered}/timeline", ADMIN)).json
    assert told["endpoint_id"] == registered
    starts = {
        each["endpoint_id"]: [start["commanded_at"] for start in each["starts"]] for each in told["user_endpoints"]
    }
    assert list(starts) == sorted(made)
    assert starts.pop(made[0]) == [1, 2] and not any(starts.values())


def test_the_timeline_of_a_manager_is_its_owners(rest, store, registered):
    user_endpoint = run(add_user_endpoint(store, registered))
    path = f"/hub/v1/endpoints/{registered}/timeline"
    (one,) = run(rest("GET", path, ADMIN)).json["user_endpoints"]
    assert (one["endpoint_id"], one["user_opts"], one["starts"]) == (user_endpoint, {"a": 1}, [])
    assert run(rest("GET", path, ALICE)).status == 403


def test_allowed_functions(rest, store, registered):
    def told(endpoint):
        return run(rest("GET", f"/v3/endpoints/{endpoint}/allowed_functions", BOB)).json

    function = new_id()
    restricted = run(add_manager(store, allowed_functions=[function]))
    assert told(registered) == {"endpoint_id": registered, "restricted": False, "functions": []}
    assert told(restricted) == {"endpoint_id": restricted, "restricted": True, "functions": [function]}


def test_a_user_stops_ones_user_endpoint_as_the_public_client_stops_any(rest, store, broker, registered):
    user_endpoint = run(add_user_endpoint(store, registered))
    for path in ("/v2/endpoints", "/v3/endpoints"):
        assert run(rest("POST", f"{path}/{user_endpoint}/lock", ALICE)).json == {"endpoint_id": user_endpoint}
    assert broker.calls[-1] == ("purge", topology.task_queue(user_endpoint))
    assert one(store, "SELECT * FROM user_endpoint").stop_asked_at > 0
    assert [run(rest("POST", f"/v3/endpoints/{user_endpoint}/lock", who)).status for who in (BOB, ADMIN)] == [403, 404]


def test_lock_and_delete(rest, store, registered):
    path = f"/v2/endpoints/{registered}"
    assert run(rest("POST", f"/v3/endpoints/{registered}/lock", ADMIN)).json == {"endpoint_id": registered}
    assert run(rest("PUT", f"/v3/endpoints/{registered}", ADMIN, body=BODY)).status == 423
    assert run(rest("DELETE", path, ALICE)).status == 403
    assert run(rest("DELETE", path, ADMIN)).json == {"endpoint_id": registered}
    assert run(rest("GET", path, ADMIN)).status == 404


def test_tasks_are_taken(rest, store, registered):
    function = new_id()
    run(add_function(store, function, public=True))
    path = f"/v3/endpoints/{registered}/submit"
    answer = run(rest("POST", path, BOB, body={"tasks": {function: ["args"]}}))
    assert answer.status == 200
    (task,) = answer.json["tasks"][function]
    assert one(store, "SELECT id FROM task").id == task
    assert run(rest("POST", path, BOB, body={})).status == 422
    assert run(rest("POST", path, BOB, raw=b"nonsense")).status == 422
