from __future__ import annotations

import dataclasses
import os

import pytest

from mep.account import Account
from mep.admission import AccountPolicy, admit
from mep.refusal import Refused


@pytest.mark.parametrize(
    ("changes", "policy", "names"),
    [
        ({"uid": 0}, AccountPolicy(min_uid=1), "root"),
        ({"gid": 0}, AccountPolicy(), "root"),
        ({"groups": (54321, 0)}, AccountPolicy(), "root"),
        ({"uid": 999}, AccountPolicy(), "min_uid"),
        ({"shell": "/usr/sbin/nologin"}, AccountPolicy(), "allow_nologin"),
        ({"shell": "/bin/false"}, AccountPolicy(), "allow_nologin"),
    ],
)
def test_who_is_not_admitted(alice: Account, changes: dict[str, object], policy: AccountPolicy, names: str) -> None:
    with pytest.raises(Refused) as caught:
        admit(dataclasses.replace(alice, **changes), policy)  # type: ignore[arg-type]
    assert names in caught.value.refusal.reason_for_admin
    assert "alice" not in caught.value.refusal.reason_for_user


def test_who_is_admitted(alice: Account) -> None:
    admit(alice, AccountPolicy())
    admit(dataclasses.replace(alice, uid=500), AccountPolicy(min_uid=500))
    admit(dataclasses.replace(alice, shell="/usr/sbin/nologin"), AccountPolicy(allow_nologin=True))


def test_the_managers_own_account_is_never_admitted(alice: Account) -> None:
    own = dataclasses.replace(alice, uid=os.getuid())
    with pytest.raises(Refused):
        admit(own, AccountPolicy(min_uid=1))
