"""Functions by REST: kept as registered, shown and forgotten to whom that is due."""

from __future__ import annotations

import pytest

from hub.callers import Callers
from hub.limits import Limits, Turns
from hub.routes.functions import FunctionRoutes
from hub.tokens import Tokens
from tests.hub.units import ALICE, BOB, CLIENTS, Rest, new_id, rows, run

BODY = {"function_name": "f", "function_code": "code", "description": "x²", "meta": {"a": 1}}


@pytest.fixture
def rest(store):
    limits = Limits(functions=3)
    return Rest(FunctionRoutes(store, Tokens(store, Callers(store, CLIENTS), Turns(limits)), limits).routes(), store)


def register(rest, **changes):
    answer = run(rest("POST", "/v3/functions", ALICE, body={**BODY, **changes}))
    assert answer.status == 200
    return f"/v2/functions/{answer.json['function_uuid']}"


def test_what_was_registered_is_shown(rest):
    told = run(rest("GET", register(rest), ALICE)).json
    assert told["function_code"] == "code"
    assert (told["description"], told["metadata"], told["serialized"]) == ("x²", {"a": 1}, True)
    assert (told["public"], told["owner"]) == (False, ALICE.identity.id)


def test_each_registration_has_an_id_of_its_own(rest):
    assert register(rest) != register(rest)


def test_one_owner_has_so_many(rest):
    first, *_ = [register(rest) for _ in range(3)]
    answer = run(rest("POST", "/v3/functions", ALICE, body=BODY))
    assert (answer.status, "the most is 3" in answer.json["reason"]) == (429, True)
    assert run(rest("POST", "/v3/functions", BOB, body=BODY)).status == 200
    run(rest("DELETE", first, ALICE))
    register(rest)


@pytest.mark.parametrize(
    "change", [{"function_name": "x" * 1025}, {"description": "x" * 65_537}, {"meta": {"a": "x" * 65_536}}]
)
def test_what_is_larger_than_it_need_be_is_refused(rest, change):
    answer = run(rest("POST", "/v3/functions", ALICE, body={**BODY, **change}))
    assert (answer.status, next(iter(change)) in answer.json["reason"]) == (413, True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"function_code": None}, "function_code: missing"),
        ({"function_name": 7}, "function_name: wrong type"),
        ({"public": "yes"}, "public: wrong type"),
        ({"group": new_id()}, "cannot be shared"),
        ({"ha_endpoint_id": new_id()}, "cannot be shared"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_field(rest, store, change, text):
    answer = run(rest("POST", "/v2/functions", ALICE, body={**BODY, **change}))
    assert answer.status == 422
    assert text in answer.json["message"]
    assert rows(store, "SELECT * FROM function") == []


def test_who_may_see_and_forget_one(rest):
    private, public = register(rest), register(rest, public=True)
    assert run(rest("GET", private, BOB)).status == 403
    assert run(rest("GET", public, BOB)).status == 200
    assert run(rest("DELETE", public, BOB)).status == 403
    assert run(rest("DELETE", public, ALICE)).status == 200
    for method in ("GET", "DELETE"):
        assert run(rest(method, public, ALICE)).status == 404
        assert run(rest(method, f"/v2/functions/{new_id()}", ALICE)).status == 404
        assert run(rest(method, "/v2/functions/x", ALICE)).status == 404
        assert run(rest(method, private)).status == 401
