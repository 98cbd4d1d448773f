"""The four questions of RabbitMQ, as its plugin asks them."""

from __future__ import annotations

import pytest

from hub.amqp.passwords import Passwords
from hub.routes.broker import BrokerRoutes
from tests.hub.units import Rest, new_id, run

ID = new_id()
UEP = f"uep.{ID}"


@pytest.fixture
def password(store):
    return run(store.write(lambda db: Passwords(store).give(db, UEP)))


@pytest.fixture
def ask(store):
    rest = Rest(BrokerRoutes(Passwords(store), "/", 5000).routes())

    def ask(question, **form):
        answer = run(rest("POST", f"/broker/{question}", form=form))
        assert answer.status == 200
        return answer.body.decode()

    return ask


def test_user(ask, password):
    assert ask("user", username=UEP, password=password) == "allow"
    assert ask("user", username=UEP, password="wrong") == "deny"
    assert ask("user", username=f"uep.{new_id()}", password=password) == "deny"
    assert ask("user", username=UEP) == "deny"
    assert ask("user") == "deny"


def test_vhost(ask, password):
    assert ask("vhost", username=UEP, vhost="/") == "allow"
    assert ask("vhost", username=UEP, vhost="/other") == "deny"
    assert ask("vhost", username=f"uep.{new_id()}", vhost="/") == "deny"
    assert ask("vhost") == "deny"


def test_resource(ask):
    own = {"username": UEP, "vhost": "/", "resource": "queue", "name": f"{ID}.tasks", "permission": "read"}
    assert ask("resource", **own) == "allow"
    for change in ({"vhost": "/other"}, {"name": "results"}, {"permission": "configure"}, {"username": ""}):
        assert ask("resource", **{**own, **change}) == "deny"
    assert ask("resource") == "deny"


def test_topic(ask):
    own = {"username": UEP, "vhost": "/", "name": "results", "permission": "write", "routing_key": f"{ID}.results"}
    assert ask("topic", **own) == "allow"
    for change in ({"vhost": "/other"}, {"routing_key": f"{new_id()}.results"}, {"permission": "read"}):
        assert ask("topic", **{**own, **change}) == "deny"
    assert ask("topic") == "deny"
