"""Authentication policies: what is taken of them, and who satisfies one."""

from __future__ import annotations

import time

import pytest

from hub import policies
from hub.clients import Client
from hub.policies import PolicyRecord, check, decode_policy, decode_project
from hub.web import Forbidden, Invalid, NeedsLogin
from tests.hub.units import identity, new_id

PROJECT = new_id()
POLICY = {"project_id": PROJECT, "display_name": "P", "description": "about it"}


def who(*usernames, **more):
    return Client(new_id(), b"", tuple(identity("x", username=name, **more) for name in usernames))


def policy(**constraints):
    return decode_policy({"policy": {**POLICY, **constraints}})


def is_admitted(record, client):
    try:
        check(new_id(), record, client)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("include", "exclude", "username", "admitted"),
    [
        (None, None, "a@example.org", True),
        ([], [], "a@example.org", True),
        (["example.org"], None, "a@example.org", True),
        (["Example.ORG"], None, "a@eXample.org", True),
        (["example.org"], None, "a@sub.example.org", False),
        (["example.org"], None, "a@notexample.org", False),
        (["example.org"], None, "example.org@evil.org", False),
        (["example.org"], None, "a@example.org@evil.org", False),
        (["*.example.org"], None, "a@sub.example.org", True),
        (["*.example.org"], None, "a@one.sub.example.org", True),
        (["*.example.org"], None, "a@example.org", False),
        (["*.example.org"], None, "a@notexample.org", False),
        (["*.edu"], None, "a@mit.edu", True),
        (None, ["example.org"], "a@example.org", False),
        (None, ["example.org"], "a@sub.example.org", True),
        (None, ["*.org"], "a@example.org", False),
        (["example.org"], ["example.org"], "a@example.org", False),
        (["*.org"], ["bad.org"], "a@bad.org", False),
        (["*.org"], ["bad.org"], "a@good.org", True),
    ],
)
def test_whose_domain_is_admitted(include, exclude, username, admitted):
    record = policy(domain_constraints_include=include, domain_constraints_exclude=exclude)
    assert is_admitted(record, who(username)) is admitted


def test_one_identity_has_to_satisfy_all_of_it():
    record = policy(domain_constraints_include=["*.org"], domain_constraints_exclude=["bad.org"])
    assert is_admitted(record, who("a@other.net", "a@good.org", "a@bad.org"))
    assert not is_admitted(record, who("a@other.net", "a@bad.org"))
    assert not is_admitted(record, who("a@good.org", status="unused"))


def test_who_has_not_logged_in_lately_is_sent_to_do_so():
    record = policy(authentication_assurance_timeout=60, domain_constraints_include=["good.org"])
    assert is_admitted(record, who("a@good.org")), "a client credential logs in with each request"
    now = int(time.time())
    assert is_admitted(record, who("a@good.org", last_authentication=now - 5))
    old = who("a@good.org", last_authentication=now - 600)
    fresh = identity("x", username="a@other.org", last_authentication=now)
    with pytest.raises(NeedsLogin) as refused:
        check(PROJECT, record, Client(new_id(), b"", (*old.identities, fresh)))
    assert refused.value.status == 403
    assert refused.value.more["authorization_parameters"]["session_required_policies"] == [PROJECT]


def test_a_linked_identity_is_no_way_around_the_age_of_a_login():
    record = policy(authentication_assurance_timeout=60)
    old = identity("x", username="a@good.org", last_authentication=int(time.time()) - 600)
    linked = identity("x", username="a@other.org")
    with pytest.raises(NeedsLogin):
        check(PROJECT, record, Client(new_id(), b"", (old, linked)))
    assert is_admitted(record, Client(new_id(), b"", (linked, old)))


def test_what_is_not_said_stays_and_null_ends_a_constraint():
    before = policy(domain_constraints_include=["a.org"], authentication_assurance_timeout=5)
    renamed = decode_policy({"policy": {"display_name": "Q"}}, before)
    assert renamed == PolicyRecord(PROJECT, "Q", "about it", ["a.org"], None, 5)
    ended = {"domain_constraints_include": None, "authentication_assurance_timeout": None}
    assert decode_policy({"policy": ended}, before) == PolicyRecord(PROJECT, "P", "about it")
    assert before.shown("id")["high_assurance"] is False


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"high_assurance": True}, "high_assurance: this service cannot"),
        ({"required_mfa": True}, "required_mfa: this service cannot"),
        ({"project_id": "x"}, "project_id: expected a UUID"),
        ({"project_id": None}, "project_id: expected a UUID"),
        ({"display_name": " "}, "display_name: expected"),
        ({"display_name": None}, "display_name: missing"),
        ({"display_name": "x" * 256}, "display_name: expected"),
        ({"description": 7}, "description: wrong type"),
        ({"domain_constraints_include": "example.org"}, "domain_constraints_include: wrong type"),
        ({"domain_constraints_include": ["*"]}, "domain_constraints_include: expected domains"),
        ({"domain_constraints_include": ["a.*.org"]}, "domain_constraints_include: expected domains"),
        ({"domain_constraints_include": ["*.*.org"]}, "domain_constraints_include: expected domains"),
        ({"domain_constraints_include": [""]}, "domain_constraints_include: expected domains"),
        ({"domain_constraints_include": [7]}, "domain_constraints_include: expected domains"),
        ({"domain_constraints_exclude": ["a@b.org"]}, "domain_constraints_exclude: expected domains"),
        ({"domain_constraints_exclude": [f"{n}.org" for n in range(101)]}, "at most 100 domains"),
        ({"authentication_assurance_timeout": 0}, "timeout: expected seconds"),
        ({"authentication_assurance_timeout": True}, "timeout: expected seconds"),
        ({"authentication_assurance_timeout": 10**30}, "timeout: expected seconds"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_field(change, text):
    with pytest.raises(Invalid) as refused:
        policy(**change)
    assert text in str(refused.value)


def test_a_domain_that_is_hard_to_match_is_refused_at_once():
    with pytest.raises(Invalid):
        policy(domain_constraints_include=["a" * 200 + "!"])


def test_a_project_has_admins_who_are_identities():
    admin = new_id()
    said = {"display_name": "D", "contact_email": "c@x.org", "admin_ids": [f" {admin.upper()}", admin]}
    record = decode_project({"project": {**said, "admin_group_ids": []}})
    assert record.admin_ids == [admin]
    assert decode_project({"project": {"display_name": "E"}}, record).admin_ids == [admin]
    for change, text in (
        ({"admin_ids": []}, "admin_ids: expected from one"),
        ({"admin_ids": None}, "admin_ids: expected from one"),
        ({"admin_ids": ["x"]}, "admin_ids: expected a UUID"),
        ({"admin_ids": [new_id() for _ in range(policies.MOST_ADMINS + 1)]}, "admin_ids: expected from one"),
        ({"admin_group_ids": [new_id()]}, "there are no groups"),
        ({"contact_email": ""}, "contact_email: expected"),
    ):
        with pytest.raises(Invalid) as refused:
            decode_project({"project": {**said, **change}})
        assert text in str(refused.value)
