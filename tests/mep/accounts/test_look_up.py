"""What is not there and what nobody could tell: an answer of the name service of the one kind is none of the other."""

from __future__ import annotations

import pytest

from mep.accounts import look_up


@pytest.mark.parametrize(("function", "there"), [("getpwnam_r", "nobody"), ("getgrnam_r", "nogroup")])
def test_what_is_not_there_has_been_answered(function: str, there: str) -> None:
    """What a name service that is down says is tried in tests/directory."""
    for name in (there, "nosuchname", "NoSuch@ad.example.org", "x" * 255):
        assert look_up.unanswered(function, name) is None
