"""Who a person becomes: by claims that they cannot choose, in one form, and under an id that stays."""

from __future__ import annotations

import pytest

from hub.login.claims import MOST_LINKED, NotAllowed, identities
from hub.login.settings import ClaimNames, LoginConfig

CLAIMS = {"sub": "1", "preferred_username": "alice", "email": "alice@example.org", "name": "Alice"}


def config(**more):
    fields = {
        "url": "http://localhost:5000",
        "issuer": "https://sso.example.org",
        "client_id": "mep-hub",
        "client_secret": "s",
        "name": "Example",
        "identity_provider": "85453953-8e33-5ac9-97a8-bdff5c84320a",
        "domain": "example.org",
        "domains": frozenset(),
    }
    return LoginConfig(**{**fields, **more})


BY_EMAIL = {"domain": None, "domains": frozenset({"example.org"}), "claims": ClaimNames(username="email")}


def test_a_username_gets_the_domain_and_the_id_is_of_the_subject():
    (alice,) = identities(config(), CLAIMS, 17)
    assert (alice.username, alice.name, alice.email) == ("alice@example.org", "Alice", "alice@example.org")
    assert (alice.status, alice.last_authentication) == ("used", 17)
    (renamed,) = identities(config(), {**CLAIMS, "preferred_username": "alice2"}, 17)
    assert renamed.id == alice.id
    (other,) = identities(config(), {**CLAIMS, "sub": "2"}, 17)
    (elsewhere,) = identities(config(issuer="https://other.example.org"), CLAIMS, 17)
    assert len({alice.id, other.id, elsewhere.id}) == 3


@pytest.mark.parametrize(
    "name", ["alice@example.org", "root@other.example", "", "a b", "älice", "alice\n", "../x", "x" * 65, "@", None, 7]
)
def test_with_a_domain_to_add_a_name_that_brings_one_or_is_none_is_refused(name):
    with pytest.raises(NotAllowed):
        identities(config(), {**CLAIMS, "preferred_username": name}, 17)


def test_the_case_of_a_name_makes_nobody_else_of_it():
    assert identities(config(), {**CLAIMS, "preferred_username": "ALICE"}, 17)[0].username == "alice@example.org"


def test_an_address_counts_when_it_is_verified_and_of_an_allowed_domain():
    verified = {**CLAIMS, "email_verified": True}
    assert identities(config(**BY_EMAIL), verified, 17)[0].username == "alice@example.org"
    for wrong in (
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email": "alice@evil.example"},
        {"email": "alice@example.org.evil.example"},
        {"email": "alice"},
        {"email": "a@b@example.org"},
        {"email": "@example.org"},
    ):
        with pytest.raises(NotAllowed):
            identities(config(**BY_EMAIL), {**verified, **wrong}, 17)


def test_linked_names_are_held_to_the_same_rules():
    linked = config(claims=ClaimNames(linked="linked"))
    alice, other = identities(linked, {**CLAIMS, "linked": ["alice.a", "alice"]}, 17)
    assert (alice.username, other.username) == ("alice@example.org", "alice.a@example.org")
    assert alice.id != other.id
    for wrong in (["root@other.example"], [7], "alice.a", ["a"] * (MOST_LINKED + 1)):
        with pytest.raises(NotAllowed):
            identities(linked, {**CLAIMS, "linked": wrong}, 17)
    assert len(identities(config(), {**CLAIMS, "linked": ["alice.a"]}, 17)) == 1


def test_other_claims_are_bounded_and_plain():
    (alice,) = identities(config(), {**CLAIMS, "name": "A\x1b[31m", "email": "x" * 1000}, 17)
    assert alice.name == "alice"
    assert len(alice.email) == 255
