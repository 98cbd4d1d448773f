from __future__ import annotations

import os
import pwd

import pytest

from mep import account
from mep.refusal import Refused


def test_an_account_has_all_its_groups() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    found = account.find(name)
    assert found.uid == os.getuid()
    assert set(os.getgrouplist(name, found.gid)) == set(found.groups)


@pytest.mark.parametrize("name", ["no-such-account", "", "a\0b", "\ud800", "0"])
def test_an_unknown_account_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        account.find(name)
    assert caught.value.refusal.stage == "account"
