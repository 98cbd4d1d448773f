"""Consents, as the public SDK reads them: what a login had in brackets is met, and nothing else."""

from __future__ import annotations

import time

from globus_sdk.scopes import GCSCollectionScopes, Scope, TransferScopes
from globus_sdk.scopes.consents import ConsentForest

from hub import consents
from tests.hub.units import ALICE, BOB, change, new_id, rows, run

COLLECTION = GCSCollectionScopes(new_id()).data_access
OTHER = GCSCollectionScopes(new_id()).data_access
DEEP = TransferScopes.all.with_dependencies([COLLECTION.with_optional(True).with_dependency(Scope("email"))])


def given(store, scope, client=ALICE):
    run(store.write(lambda db: consents.keep(db, client.client_id, str(scope))))


def forest(store, client=ALICE):
    return ConsentForest(run(consents.shown(store, client)))


def test_what_was_asked_for_is_met_and_nothing_else(store):
    given(store, f"openid {DEEP}")
    assert forest(store).meets_scope_requirements(DEEP)
    assert forest(store).meets_scope_requirements(TransferScopes.all.with_dependency(COLLECTION))
    assert not forest(store).meets_scope_requirements(TransferScopes.all.with_dependency(OTHER))
    assert not forest(store, BOB).meets_scope_requirements(DEEP)
    given(store, TransferScopes.all.with_dependency(OTHER))
    assert forest(store).meets_scope_requirements(TransferScopes.all.with_dependencies([COLLECTION, OTHER]))


def test_a_login_without_brackets_leaves_nothing(store):
    given(store, "openid email")
    assert rows(store, "SELECT * FROM consent") == []


def test_they_are_bounded_and_forgotten(store, monkeypatch):
    monkeypatch.setattr(consents, "MOST", 3)
    given(store, DEEP)
    run(change(store, "UPDATE consent SET given_at = 1"))
    given(store, TransferScopes.all.with_dependency(OTHER))
    assert len(rows(store, "SELECT * FROM consent")) == 3
    assert forest(store).meets_scope_requirements(TransferScopes.all.with_dependency(OTHER))
    run(store.write(lambda db: consents.forget_old(db, time.time() + consents.KEEP - 60)))
    assert len(rows(store, "SELECT * FROM consent")) == 2
