"""Who may have a user endpoint: every rule, who wins, and what the two people are told."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mep.monitor.stages.admission import admit
from mep.profile.sections.accounts import AccountPolicy
from mep.request.account import Account, ShellFault
from mep.request.refusal import Refused

IDS: Mapping[str, int | None] = {"users": 100, "hpc": 700, "guests": 800, "gone": None, "lost": None}
"""alice is in `users` only."""


def objection(account: Account, policy: AccountPolicy, ids: Mapping[str, int | None] = IDS) -> str | None:
    """What the admin is told; None: admitted."""
    try:
        admit(account, policy, ids)
    except Refused as e:
        assert e.refusal.stage == "admission"
        assert account.name in e.refusal.reason_for_admin
        for word in (account.name, str(account.uid), "accounts.", *policy.group_names(), *(policy.deny_users)):
            assert word not in e.refusal.reason_for_user
        return e.refusal.reason_for_admin
    return None


@pytest.mark.parametrize(
    ("changes", "policy", "names"),
    [
        ({"uid": 0}, AccountPolicy(min_uid=1), "root"),
        ({"gid": 0}, AccountPolicy(), "root"),
        ({"groups": (54321, 0)}, AccountPolicy(), "root"),
        ({"uid": 999}, AccountPolicy(), "accounts.min_uid"),
        ({"shell": "/usr/sbin/nologin"}, AccountPolicy(), "accounts.allow_nologin"),
        ({"shell": "/bin/false"}, AccountPolicy(), "accounts.allow_nologin"),
        ({"shell": "/usr/local/sbin/nologin"}, AccountPolicy(), "accounts.allow_nologin"),
        ({"shell": "/bin/sync", "shell_fault": ShellFault.UNLISTED}, AccountPolicy(), "not a login shell"),
        ({"shell_fault": ShellFault.UNUSABLE}, AccountPolicy(), "cannot be executed (key accounts.allow_nologin"),
    ],
)
def test_who_is_not_admitted(alice: Account, changes: dict[str, Any], policy: AccountPolicy, names: str) -> None:
    assert names in (objection(dataclasses.replace(alice, **changes), policy) or "")


def test_who_is_admitted(alice: Account) -> None:
    admit(alice, AccountPolicy())
    admit(dataclasses.replace(alice, uid=500), AccountPolicy(min_uid=500))
    admit(dataclasses.replace(alice, shell="/usr/sbin/nologin"), AccountPolicy(allow_nologin=True))
    for fault in ShellFault:
        admit(dataclasses.replace(alice, shell_fault=fault), AccountPolicy(allow_nologin=True))


def test_a_shell_that_cannot_be_executed_ends_nothing_that_runs(alice: Account) -> None:
    """The disk that it lies on may come back; one that is no login shell any more is somebody's decision."""
    ends = {}
    for fault in ShellFault:
        with pytest.raises(Refused) as caught:
            admit(dataclasses.replace(alice, shell_fault=fault), AccountPolicy())
        ends[fault] = caught.value.refusal.ends_right
    assert ends == {ShellFault.UNLISTED: True, ShellFault.UNUSABLE: False}


@pytest.mark.parametrize(
    ("lists", "names"),
    [
        ({}, ()),
        ({"allow_users": ("alice",)}, ()),
        ({"allow_users": ("bob", "alice")}, ()),
        ({"allow_users": ("bob",)}, ("accounts.allow_users",)),
        ({"allow_users": ()}, ("accounts.allow_users",)),
        ({"allow_users": ("Alice", "alic", "alice2")}, ("accounts.allow_users",)),
        ({"deny_users": ("bob",)}, ()),
        ({"deny_users": ("bob", "alice")}, ("accounts.deny_users",)),
        ({"allow_users": ("alice",), "deny_users": ("alice",)}, ("accounts.deny_users",)),
        ({"allow_groups": ("hpc", "users")}, ()),
        ({"allow_groups": ("hpc",)}, ("accounts.allow_groups",)),
        ({"allow_groups": ()}, ("accounts.allow_groups",)),
        ({"allow_groups": ("gone", "users")}, ()),
        ({"allow_groups": ("gone", "hpc")}, ("accounts.allow_groups", "'gone'")),
        ({"allow_groups": ("gone", "lost")}, ("accounts.allow_groups", "'gone'", "'lost'")),
        ({"deny_groups": ("guests",)}, ()),
        ({"deny_groups": ("guests", "users")}, ("accounts.deny_groups", "'users'")),
        ({"deny_groups": ("gone",)}, ("accounts.deny_groups", "'gone'", "mend")),
        ({"deny_groups": ("guests", "gone"), "allow_users": ("alice",)}, ("accounts.deny_groups", "'gone'")),
        ({"deny_groups": ("users",), "allow_groups": ("users",)}, ("accounts.deny_groups",)),
        ({"allow_users": ("alice",), "allow_groups": ("hpc",)}, ("accounts.allow_groups",)),  # each must be passed
        ({"allow_users": ("bob",), "allow_groups": ("users",)}, ("accounts.allow_users",)),
        ({"allow_users": ("alice",), "allow_groups": ("users",), "deny_groups": ("guests",)}, ()),
    ],
)
def test_lists(alice: Account, lists: dict[str, Any], names: tuple[str, ...]) -> None:
    told = objection(alice, AccountPolicy(**lists))
    assert (told is None) == (not names)
    assert all(name in (told or "") for name in names)


@pytest.mark.parametrize("name", ["Alice", "1alice", "alice@ad.example.org", "a" * 33])
def test_a_name_that_only_directories_have(alice: Account, name: str) -> None:
    """The mapper has been told; here it counts once more, and for who runs already."""
    named = dataclasses.replace(alice, name=name)
    assert "accounts.directory_names" in (objection(named, AccountPolicy()) or "")
    assert objection(named, AccountPolicy(directory_names=True)) is None
    never = dataclasses.replace(alice, name=f"{name[:20]}:x")
    assert "holds ':'" in (objection(never, AccountPolicy(directory_names=True)) or "")


def test_a_denial_is_for_all_spellings_of_a_name(alice: Account) -> None:
    """There are directories that take them for the same account, and answer with the one that was asked for."""
    policy = AccountPolicy(deny_users=("Bob", "alice"), directory_names=True)
    for name in ("alice", "ALICE", "bob", "bOB"):
        assert "accounts.deny_users" in (objection(dataclasses.replace(alice, name=name), policy) or "")
    assert objection(dataclasses.replace(alice, name="alice@ad.example.org"), policy) is None
    allowed = AccountPolicy(allow_users=("Bob",), directory_names=True)
    assert objection(dataclasses.replace(alice, name="bob"), allowed)


def test_the_primary_group_counts_even_if_it_is_not_listed(alice: Account) -> None:
    odd = dataclasses.replace(alice, gid=800, groups=(100,))
    assert "deny_groups" in (objection(odd, AccountPolicy(deny_groups=("guests",))) or "")
    assert "root" in (objection(dataclasses.replace(alice, gid=0, groups=(100,)), AccountPolicy()) or "")


def test_a_policy_names_each_of_its_groups_once() -> None:
    assert AccountPolicy().group_names() == ()
    policy = AccountPolicy(allow_groups=("a", "b", "a"), deny_groups=("b", "c"))
    assert sorted(policy.group_names()) == ["a", "b", "c"]


def test_a_group_that_was_not_looked_up_admits_nobody(alice: Account) -> None:
    for policy in (AccountPolicy(allow_groups=("users", "new")), AccountPolicy(deny_groups=("new",))):
        with pytest.raises(KeyError):
            admit(alice, policy, IDS)
        with pytest.raises(KeyError):
            admit(alice, policy)


def test_the_managers_own_account_is_never_admitted(alice: Account) -> None:
    own = dataclasses.replace(alice, uid=os.getuid())
    with pytest.raises(Refused):
        admit(own, AccountPolicy(min_uid=1))


users = st.lists(st.sampled_from(["alice", "bob", "root"]), max_size=3).map(tuple)
groups = st.lists(st.sampled_from(sorted(IDS)), max_size=4).map(tuple)
policies = st.builds(
    AccountPolicy,
    min_uid=st.integers(1, 60000),
    allow_nologin=st.booleans(),
    allow_users=st.none() | users,
    deny_users=users,
    allow_groups=st.none() | groups,
    deny_groups=groups,
)
accounts = st.builds(
    Account,
    name=st.sampled_from(["alice", "bob", "root"]),
    uid=st.sampled_from([0, 1, 999, 1000, 54321]),
    gid=st.sampled_from([0, 100, 700]),
    gecos=st.just(""),
    home=st.just("/"),
    shell=st.sampled_from(["/bin/bash", "/sbin/nologin"]),
    groups=st.lists(st.sampled_from([0, 100, 700, 800]), max_size=3).map(tuple),
    shell_fault=st.none() | st.sampled_from(ShellFault),
)


def admitted(account: Account, policy: AccountPolicy, ids: Mapping[str, int | None] = IDS) -> bool:
    try:
        admit(account, policy, ids)
    except Refused:
        return False
    return True


@given(accounts, policies)
def test_agrees_with_the_rules_word_for_word(account: Account, policy: AccountPolicy) -> None:
    member = {account.gid, *account.groups}
    assert admitted(account, policy) == (
        account.uid not in (0, os.getuid())
        and account.name != "root"
        and 0 not in member
        and account.uid >= policy.min_uid
        and (policy.allow_nologin or ("nologin" not in account.shell and account.shell_fault is None))
        and account.name not in policy.deny_users
        and (policy.allow_users is None or account.name in policy.allow_users)
        and all(IDS[name] is not None and IDS[name] not in member for name in policy.deny_groups)
        and (policy.allow_groups is None or any(IDS[name] in member for name in policy.allow_groups))
    )


@given(policies, st.dictionaries(st.sampled_from(sorted(IDS)), st.just(0)))
def test_root_is_never_admitted_whatever_is_configured(policy: AccountPolicy, more: dict[str, int | None]) -> None:
    for uid, gid, extra in itertools.product((0, 54321), (0, 100), (0, 100)):
        if 0 in (uid, gid, extra):
            account = Account("alice", uid, gid, "", "/", "/bin/bash", (100, extra))
            assert not admitted(account, policy, {**IDS, **more})


@given(accounts, policies, users, groups)
def test_to_deny_more_never_admits_more(
    account: Account, policy: AccountPolicy, names: tuple[str, ...], others: tuple[str, ...]
) -> None:
    stricter = dataclasses.replace(
        policy, deny_users=policy.deny_users + names, deny_groups=policy.deny_groups + others
    )
    assert admitted(account, policy) or not admitted(account, stricter)
