"""Who may call: clients of hub.yaml and people, each of whom has their names for themselves."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy import insert

from hub.amqp import topology
from hub.callers import Callers, NameTaken
from hub.store import tables
from tests.hub.units import ALICE, BOB, CLIENTS, identity, rows, run

CAROL = identity("carol")


@pytest.fixture
def callers(store):
    return Callers(store, CLIENTS, {})


def test_clients_of_the_file_have_secrets_and_people_have_none(callers):
    assert callers.with_secret(ALICE.client_id.upper()) is ALICE
    assert run(callers.get(BOB.client_id)) is BOB
    assert run(callers.get(CAROL.id)) is None
    carol = run(callers.welcome((CAROL,)))
    assert run(callers.get(CAROL.id)) == carol
    assert callers.with_secret(CAROL.id) is None
    assert not carol.is_secret("")


def test_people_are_who_the_provider_said_last(callers):
    run(callers.welcome((CAROL, identity("cc"))))
    renamed = dataclasses.replace(CAROL, username="carol.c@example.org", name="Carol")
    run(callers.welcome((renamed,)))
    assert run(callers.get(CAROL.id)).identities == (renamed,)
    assert run(callers.identities([], ["carol@example.org", "cc@example.org"])) == []
    run(callers.welcome((identity("carol"),)))  # the name is free now


@pytest.mark.parametrize(
    "other", [(identity("carol"),), (identity("dave"), identity("carol")), (identity("cc"),), (identity("alice"),)]
)
def test_a_name_belongs_to_who_has_it(callers, other):
    run(callers.welcome((CAROL, identity("cc"))))
    with pytest.raises(NameTaken, match=other[-1].username):
        run(callers.welcome(other))
    assert run(callers.get(other[0].id)) is None
    assert run(callers.get(CAROL.id)).identity == CAROL


def test_the_same_identity_may_be_a_client_too(callers):
    assert run(callers.welcome((ALICE.identity,))).identity == ALICE.identity


def test_an_admin_links_identities_from_one_moment_to_the_next(store, callers):
    more = identity("c.other")
    run(callers.welcome((CAROL,)))
    linking = Callers(store, CLIENTS, {CAROL.username: (more,)})
    assert run(linking.get(CAROL.id)).identities == (CAROL, more)
    assert run(linking.identities([more.id], [])) == []  # it is known by whose it is
    assert run(callers.get(CAROL.id)).identities == (CAROL,)


def test_where_nobody_can_log_in_people_are_nobody(store, callers):
    run(callers.welcome((CAROL,)))
    without = Callers(store, CLIENTS)
    assert run(without.get(CAROL.id)) is None
    assert run(without.identities([CAROL.id, BOB.identity.id], [CAROL.username])) == [BOB.identity]


def test_identities_are_found_by_id_and_name(callers):
    run(callers.welcome((CAROL, identity("cc"))))
    found = run(callers.identities([BOB.identity.id], ["cc@example.org", "nobody@example.org"]))
    assert [each.username for each in found] == ["bob@example.org", "cc@example.org"]


def test_who_is_forgotten_has_nothing_any_more_and_their_name_is_free(callers, store):
    carol, dave = (run(callers.welcome((each,))) for each in (CAROL, identity("dave")))
    for client in (carol, dave):
        change = {"client": client.client_id, "expires": 9e9}
        mark = client.client_id.encode()
        login = {"hash": mark, "login": "l", "app": "a", **change}
        code = {"challenge": "", "redirect_uri": "", "scope": "", "offline": True, "authenticated_at": 0}
        account = topology.client_account(client.client_id)
        for table, row in (
            (tables.token, {**login, "resource_server": "s"}),
            (tables.refresh_token, {**login, "resource_server": "s", "scope": ""}),
            (tables.code, {**login, **code}),
            (tables.session, {"hash": mark, "authenticated_at": 0, **change}),
            (tables.password, {"account": account, "hash": mark, "expires": 9e9}),
        ):
            run(store.execute(insert(table).values(**row)))
    assert run(callers.forget("Carol@example.org")) == carol.client_id
    assert run(callers.forget("carol@example.org")) is None
    assert run(callers.get(carol.client_id)) is None
    assert run(callers.get(dave.client_id)) == dave
    for table in ("token", "refresh_token", "code", "session", "password", "person", "person_name"):
        assert len(rows(store, f"SELECT * FROM {table}")) == 1, table
    run(callers.welcome((identity("carol"),)))
