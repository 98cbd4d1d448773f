"""The account of the helpers: found before an event loop runs, or refused with the key to change."""

from __future__ import annotations

import os
import pwd

import pytest

from mep.daemon import helper_account
from mep.processes.helper import HelperUnavailable


def test_it_is_found_by_its_name() -> None:
    found, entry = helper_account.find("nobody"), pwd.getpwnam("nobody")
    assert (found.name, found.uid, found.gid) == ("nobody", entry.pw_uid, entry.pw_gid)


@pytest.mark.parametrize("name", ["no-such-account", "", "a\0b"])
def test_one_that_does_not_exist_is_a_matter_of_the_configuration(name: str) -> None:
    with pytest.raises(HelperUnavailable, match="set render_account in config") as caught:
        helper_account.find(name)
    assert caught.value.exit_code == os.EX_CONFIG
    assert repr(name) in str(caught.value)
