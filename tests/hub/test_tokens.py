"""Bearer tokens: for whom, for which resource server, for how long; and never in the file."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from hub import guesses
from hub import tokens as module
from hub.callers import Callers
from hub.limits import Limits, Turns
from hub.scopes import AUTH, COMPUTE
from hub.tokens import Tokens
from hub.web import ApiError, Forbidden
from tests.hub.units import ALICE, BOB, CLIENTS, COMPUTE_SCOPE, basic, change, rows, run


@pytest.fixture
def tokens(store):
    return Tokens(store, Callers(store, CLIENTS), Turns(Limits()))


def request(headers, address="192.0.2.1"):
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "client": (address, 1), "server": ("192.0.2.99", 2)})


def bearer(token):
    return request({"authorization": f"Bearer {token}"})


def status(tokens, request, resource_server=COMPUTE):
    with pytest.raises(ApiError) as refused:
        run(tokens.caller(request, resource_server))
    return refused.value.status


def test_client_and_secret(tokens):
    assert run(tokens.client_of_basic(request(basic(ALICE.client_id, "secret of alice")))) is ALICE
    assert run(tokens.client_of_basic(request(basic(ALICE.client_id.upper(), "secret of alice")))) is ALICE
    for headers in (
        {},
        basic(ALICE.client_id, "secret of bob"),
        basic("", ""),
        {"authorization": "Basic ???"},
        {"authorization": "Basic /w=="},  # no UTF-8
        {"authorization": "Bearer " + basic(ALICE.client_id, "secret of alice")["authorization"][6:]},
    ):
        with pytest.raises(ApiError) as refused:
            run(tokens.client_of_basic(request(headers)))
        assert refused.value.status == 401


def test_one_token_for_each_resource_server(tokens, store):
    grants = run(tokens.issue(ALICE, [COMPUTE_SCOPE, "openid", "email"]))
    assert {g.resource_server: g.scope for g in grants} == {COMPUTE: COMPUTE_SCOPE, AUTH: "openid email"}
    for grant in grants:
        assert run(tokens.caller(bearer(grant.access_token), grant.resource_server)) is ALICE
        assert grant.access_token not in repr(grant)
    kept = [tuple(row) for row in rows(store, "SELECT * FROM token")]
    assert all(grant.access_token not in str(kept) for grant in grants)
    compute = next(g for g in grants if g.resource_server == COMPUTE)
    with pytest.raises(Forbidden):
        run(tokens.caller(bearer(compute.access_token), AUTH))


@pytest.mark.parametrize("scopes", [[], ["nonsense"], ["openid", "urn:globus:auth:scope:all"]])
def test_other_scopes_are_refused_and_nothing_is_issued(tokens, store, scopes):
    with pytest.raises(ApiError) as refused:
        run(tokens.issue(ALICE, scopes))
    assert (refused.value.status, refused.value.code) == (400, "invalid_scope")
    assert len(str(refused.value)) < 300
    assert rows(store, "SELECT * FROM token") == []


def test_a_token_for_a_service_that_is_not_here_is_good_for_nothing(tokens):
    (grant,) = run(tokens.issue(ALICE, ["urn:globus:auth:scope:transfer.api.globus.org:all"]))
    for resource_server in (COMPUTE, AUTH):
        assert status(tokens, bearer(grant.access_token), resource_server) == 403


def test_who_has_no_valid_token_is_nobody(tokens, store):
    (grant,) = run(tokens.issue(ALICE, [COMPUTE_SCOPE]))
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Basic {grant.access_token}"}):
        assert status(tokens, request(headers)) == 401
    run(change(store, "UPDATE token SET expires = 1"))
    assert status(tokens, bearer(grant.access_token)) == 401


def test_a_credential_that_hub_yaml_no_longer_has_is_nobody(store):
    (grant,) = run(Tokens(store, Callers(store, CLIENTS), Turns(Limits())).issue(ALICE, [COMPUTE_SCOPE]))
    without = Tokens(store, Callers(store, {BOB.client_id: BOB}), Turns(Limits()))
    assert status(without, bearer(grant.access_token)) == 401


def test_only_its_own_client_revokes_a_token(tokens):
    (grant,) = run(tokens.issue(ALICE, [COMPUTE_SCOPE]))
    run(tokens.revoke(BOB, grant.access_token))
    assert run(tokens.caller(bearer(grant.access_token))) is ALICE
    run(tokens.revoke(ALICE, f" {grant.access_token}\n"))
    assert status(tokens, bearer(grant.access_token)) == 401
    run(tokens.revoke(ALICE, "never issued"))


def test_tokens_live_as_long_as_those_of_globus():
    assert module.LIFETIME == 48 * 3600


def test_a_secret_cannot_be_guessed_fast_and_its_owner_goes_on(tokens, monkeypatch):
    def log_in(secret, address):
        try:
            return run(tokens.client_of_basic(request(basic(ALICE.client_id, secret), address)))
        except ApiError as e:
            return e.status

    right = "secret of alice"
    assert log_in(right, "192.0.2.1") is ALICE
    assert [log_in("x", "192.0.2.2") for _ in range(12)] == [401] * guesses.MOST_OF_ONE_SOURCE + [429] * 2
    assert log_in(right, "192.0.2.2") == 429, "or a guess would be told to be right"
    assert log_in(right, "192.0.2.3") is ALICE
    for host in range(10, 20):
        for _ in range(6):
            log_in("x", f"192.0.2.{host}")
    assert log_in(right, "192.0.2.100") == 429
    assert log_in(right, "192.0.2.1") is log_in(right, "192.0.2.3") is ALICE, "where it has logged in before"
    assert run(tokens.client_of_basic(request(basic(BOB.client_id, "secret of bob"), "192.0.2.2"))) is BOB
    now = guesses.time.monotonic() + 61
    monkeypatch.setattr(guesses.time, "monotonic", lambda: now)
    assert log_in(right, "192.0.2.2") is ALICE
