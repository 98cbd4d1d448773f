"""Another secret in hub.yaml ends what came of the one before, and of nobody else's."""

from __future__ import annotations

import dataclasses
import hashlib
import time

import pytest
from sqlalchemy import insert

from hub import credentials
from hub.amqp import topology
from hub.store import tables
from tests.hub.units import ADMIN, ALICE, BOB, rows, run

TABLES = ("session", "code", "refresh_token", "token", "password")


def with_secret(client, secret):
    return dataclasses.replace(client, secret_sha256=hashlib.sha256(secret.encode()).digest())


@pytest.fixture
def begin(store):
    """As the hub begins, with these clients in hub.yaml; returns whose secrets are others."""
    return lambda *clients: run(credentials.end_old(store, clients))


@pytest.fixture
def logged_in(store):
    """ALICE and BOB have one of everything."""

    def add(db):
        for client in (ALICE, BOB):
            at = {"client": client.client_id, "expires": time.time() + 1000, "hash": client.client_id.encode()}
            login = {**at, "login": "l", "app": "a", "scope": "s"}
            db.execute(insert(tables.session), {**at, "authenticated_at": 0})
            db.execute(insert(tables.refresh_token), {**login, "resource_server": "r"})
            db.execute(insert(tables.token), {**login, "resource_server": "r"})
            more = {"challenge": "c", "redirect_uri": "u", "offline": True, "authenticated_at": 0}
            db.execute(insert(tables.code), {**login, **more})
            account = topology.client_account(client.identity.id)
            db.execute(insert(tables.password), {"account": account, "hash": b"", "expires": at["expires"]})

    run(store.write(add))
    return lambda: {table: len(rows(store, f"SELECT 1 FROM {table}")) for table in TABLES}


def test_what_came_of_an_old_secret_ends(begin, logged_in, store):
    old, new = with_secret(ALICE, "old"), with_secret(ALICE, "new")
    assert begin(old, BOB) == [], "the first start of this version ends nothing"
    assert begin(old, BOB) == [] and set(logged_in().values()) == {2}
    assert begin(new, BOB) == [ALICE.client_id]
    assert set(logged_in().values()) == {1}
    left = [rows(store, f"SELECT client FROM {table}")[0].client for table in TABLES if table != "password"]
    assert set(left) == {BOB.client_id}
    assert rows(store, "SELECT account FROM password")[0].account == topology.client_account(BOB.identity.id)
    assert begin(new, BOB) == []


def test_one_that_was_gone_meanwhile_is_known(begin, logged_in):
    begin(with_secret(ALICE, "old"), BOB)
    assert begin(BOB, ADMIN) == []
    assert begin(with_secret(ALICE, "old"), BOB) == []
    assert begin(BOB) == []
    assert begin(with_secret(ALICE, "new"), BOB) == [ALICE.client_id]


def test_no_secret_and_no_hash_of_hub_yaml_is_in_the_database(begin, store):
    client = with_secret(ALICE, "old")
    begin(client)
    (row,) = rows(store, "SELECT * FROM credential")
    assert row.client == client.client_id
    assert client.secret_sha256 not in row.secret and b"old" not in row.secret
