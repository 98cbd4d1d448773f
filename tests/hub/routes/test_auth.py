"""The part of Globus Auth that the hub plays."""

from __future__ import annotations

import pytest

from hub.callers import Callers
from hub.limits import Limits, Turns
from hub.routes.auth import AuthRoutes
from hub.tokens import Tokens
from tests.hub.units import ALICE, BOB, CLIENTS, COMPUTE_SCOPE, Rest, basic, new_id, run


@pytest.fixture
def rest(store):
    return Rest(
        AuthRoutes(Tokens(store, Callers(store, CLIENTS), Turns(Limits())), Callers(store, CLIENTS)).routes(), store
    )


def ask_for_token(rest, **changes):
    form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE, **changes}
    return run(rest("POST", "/v2/oauth2/token", form=form, headers=basic(ALICE.client_id, "secret of alice")))


def test_the_first_token_is_the_answer_and_the_others_are_in_it(rest):
    answer = ask_for_token(rest, scope=f"{COMPUTE_SCOPE} openid")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json
    assert (told["resource_server"], told["token_type"], told["expires_in"]) == ("funcx_service", "Bearer", 172800)
    assert [other["resource_server"] for other in told["other_tokens"]] == ["auth.globus.org"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "x"}, "invalid_scope"),
    ],
)
def test_other_ways_to_log_in_are_refused(rest, changes, code):
    answer = ask_for_token(rest, **changes)
    assert (answer.status, answer.json["code"]) == (400, code)


def test_only_with_the_secret(rest):
    for path in ("/v2/oauth2/token", "/v2/oauth2/token/revoke"):
        assert run(rest("POST", path, form={}, headers=basic(ALICE.client_id, "wrong"))).status == 401


def test_a_revoked_token_is_no_longer_good(rest):
    token = ask_for_token(rest, scope="openid").json["access_token"]
    with_token = {"authorization": f"Bearer {token}"}
    assert run(rest("GET", "/v2/oauth2/userinfo", headers=with_token)).status == 200
    for _ in range(2):  # whether there was one is not told
        secret = basic(ALICE.client_id, "secret of alice")
        answer = run(rest("POST", "/v2/oauth2/token/revoke", form={"token": token}, headers=secret))
        assert answer.json == {"active": False}
    assert run(rest("GET", "/v2/oauth2/userinfo", headers=with_token)).status == 401


def test_who_one_is(rest):
    told = run(rest("GET", "/v2/oauth2/userinfo", ALICE, scope="openid")).json
    assert (told["sub"], told["preferred_username"]) == (ALICE.identity.id, "alice@example.org")
    assert [entry["id"] for entry in told["identity_set"]] == [i.id for i in ALICE.identities]


def test_identities_by_id_and_by_name(rest):
    def found(query, caller=ALICE):
        answer = run(rest("GET", f"/v2/api/identities?{query}", caller, scope="openid"))
        return [record["username"] for record in answer.json["identities"]]

    assert found(f"ids={BOB.identity.id.upper()},{new_id()}") == ["bob@example.org"]
    assert found("usernames=al@example.org,%20nobody") == ["al@example.org"]
    assert found("") == []


def test_consents_are_ones_own(rest):
    ask_for_token(rest, scope="urn:globus:auth:scope:transfer.api.globus.org:all[openid]")

    def told(caller, identity):
        return run(rest("GET", f"/v2/api/identities/{identity.id}/consents", caller, scope="openid"))

    assert [len(each["dependency_path"]) for each in told(ALICE, ALICE.identity).json["consents"]] == [1, 2]
    assert told(ALICE, ALICE.identities[1]).status == 200
    assert told(BOB, BOB.identity).json == {"consents": []}
    assert told(BOB, ALICE.identity).status == 404


def test_a_token_for_compute_is_none_for_auth(rest):
    for path in ("/v2/oauth2/userinfo", "/v2/api/identities"):
        assert run(rest("GET", path, ALICE)).status == 403
