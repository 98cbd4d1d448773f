"""Who a client credential stands for, and how its identities are shown."""

from __future__ import annotations

import time

from tests.hub.units import ALICE, BOB, client, identity


def test_only_its_own_secret_is_right():
    assert ALICE.is_secret("secret of alice")
    assert not ALICE.is_secret("secret of bob")
    assert not ALICE.is_secret("")
    assert "secret" not in repr(ALICE).replace("secret_sha256", "")


def test_the_first_identity_is_the_effective_one_and_all_are_its_own():
    linked = identity("al")
    both = client("alice", linked)
    assert both.identity is both.identities[0]
    assert both.is_one_of(both.identity.id)
    assert both.is_one_of(linked.id)
    assert not both.is_one_of(BOB.identity.id)


def test_a_record_and_an_entry_of_the_identity_set():
    record = ALICE.identity.record()
    assert set(record) == {"id", "username", "name", "email", "identity_provider", "organization", "status"}
    entry = ALICE.identities[1].set_entry()
    assert entry["sub"] == entry["id"] == ALICE.identities[1].id
    assert entry["status"] == "private"
    assert entry["last_authentication"] >= int(time.time()) - 60
    assert identity("x", last_authentication=7).set_entry()["last_authentication"] == 7
