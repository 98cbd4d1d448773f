"""The application as a whole, without a broker: what needs none is answered, the rest is told to come again."""

from __future__ import annotations

import re

import pytest

from hub.app import Hub
from hub.config import HubConfig
from hub.limits import BODY_BYTES, FORM_BYTES
from hub.store.store import sqlite_url
from tests.hub.units import (
    ALICE,
    CLIENTS,
    COMPUTE_SCOPE,
    CONFIG,
    ask,
    basic,
    new_id,
    run,
)


@pytest.fixture
def hub(store, tmp_path):
    return Hub(HubConfig("127.0.0.1", 5000, 5000, sqlite_url(tmp_path / "hub.db"), CONFIG, CLIENTS), store)


async def token(hub):
    form = f"grant_type=client_credentials&scope={COMPUTE_SCOPE}".encode()
    answer = await ask(hub.app, "POST", "/v2/oauth2/token", form, basic(ALICE.client_id, "secret of alice"))
    assert answer.status == 200
    return {"authorization": f"Bearer {answer.json['access_token']}"}


def test_the_version_needs_no_token(hub):
    answer = run(ask(hub.app, "GET", "/v2/version"))
    assert answer.status == 200
    assert set(answer.json) == {"api", "min_ep_version", "min_sdk_version"}


def test_a_call_that_is_not_there_is_an_error_that_clients_read(hub):
    answer = run(ask(hub.app, "GET", "/v2/no/such/call"))
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    assert "GET /v2/no/such/call" in answer.json["message"]


def test_every_call_but_those_of_the_broker_and_the_version_wants_to_know_who_asks(hub):
    """The pages lead to where one signs in."""

    async def scenario():
        for route in hub.app._app.routes:
            path = re.sub(r"\{.*?\}", new_id(), route.path)
            for method in route.methods - {"HEAD"}:
                answer = await ask(hub.app, method, path, b"{}")
                led_on = answer.headers.get("location") == "/page/"
                statuses[route.path] = "sign in" if led_on else answer.status

    statuses = {}
    run(scenario())
    open_to_all = {path for path, status in statuses.items() if status not in ("sign in", 401, 410, 501)}
    broker = {"/broker/user", "/broker/vhost", "/broker/resource", "/broker/topic"}
    assert open_to_all == {"/v2/version", *broker, "/page/", "/page/static/{name}", "/page/{other:path}"}
    assert {path.split("/")[1] for path, status in statuses.items() if status == "sign in"} == {"", "page"}
    assert len(statuses) > 20


def test_without_a_broker_registrations_are_told_to_come_again(hub):
    async def scenario():
        return await ask(hub.app, "POST", "/v3/endpoints", b'{"endpoint_name": "e"}', await token(hub))

    answer = run(scenario())
    assert (answer.status, answer.json["code"]) == (503, "BROKER_UNAVAILABLE")
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("path", "most"),
    [("/broker/user", FORM_BYTES), ("/v2/oauth2/token", FORM_BYTES), ("/v3/functions", BODY_BYTES)],
)
@pytest.mark.parametrize("says", [True, False], ids=["declared", "in chunks"])
def test_a_body_that_is_too_large_is_not_read(hub, path, most, says):
    """In chunks none of which is too large, or of a size that is said before: either way it is not held."""

    async def scenario():
        head = {**basic(ALICE.client_id, "secret of alice"), **(await token(hub) if path == "/v3/functions" else {})}
        if says:
            head["content-length"] = str(most + 1)
        return await ask(hub.app, "POST", path, b"x" * 10_000, head, endless=True)

    answer = run(scenario())
    assert (answer.status, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert str(most) in answer.json["message"]
    assert answer.asked_for <= most // 10_000 + 1
    assert not says or answer.asked_for == 0


def test_a_form_of_many_fields_is_refused(hub):
    answer = run(ask(hub.app, "POST", "/broker/user", b"a=1&" * 1000))
    assert answer.status == 422


@pytest.mark.parametrize(
    "body", [b"[" * 50_000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"function_code": "\\ud800", "function_name": "f"}']
)
def test_a_body_that_would_fail_later_is_refused(hub, body):
    async def scenario():
        return await ask(hub.app, "POST", "/v3/functions", body, await token(hub))

    assert run(scenario()).status == 422
