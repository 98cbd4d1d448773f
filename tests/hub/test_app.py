"""The application as a whole, without a broker: what needs none is answered, the rest is told to come again."""

from __future__ import annotations

import pytest

from hub.app import Hub
from hub.config import HubConfig
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
    return Hub(HubConfig("127.0.0.1", 5000, tmp_path / "hub.db", CONFIG, CLIENTS), store)


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
    async def scenario():
        for route in hub.app.routes:
            path = route.path.replace("{id}", new_id())
            (method,) = route.methods - {"HEAD"}
            answer = await ask(hub.app, method, path, b"{}")
            statuses[path] = answer.status

    statuses = {}
    run(scenario())
    open_to_all = {path for path, status in statuses.items() if status != 401}
    assert open_to_all == {"/v2/version", "/broker/user", "/broker/vhost", "/broker/resource", "/broker/topic"}
    assert len(statuses) > 20


def test_without_a_broker_registrations_are_told_to_come_again(hub):
    async def scenario():
        return await ask(hub.app, "POST", "/v3/endpoints", b'{"endpoint_name": "e"}', await token(hub))

    answer = run(scenario())
    assert (answer.status, answer.json["code"]) == (503, "BROKER_UNAVAILABLE")
    assert answer.headers["retry-after"]
