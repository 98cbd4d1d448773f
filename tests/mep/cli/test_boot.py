"""The unit of a profile: one for each name, and the profile's name is in it."""

from __future__ import annotations

import pytest

from mep.cli import boot
from mep.profile import profile


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("my-site", "mep@my-site.service"),
        ("a@b.c", "mep@a@b.c.service"),
        ("c++", r"mep@c\x2b\x2b.service"),
        ("über", r"mep@\xc3\xbcber.service"),
        ("a*", r"mep@a\x2a.service"),  # to systemctl, `mep@a*.service` is each that begins so
    ],
)
def test_a_unit_is_that_of_one_profile(name: str, unit: str) -> None:
    assert boot.unit(name) == unit
    assert profile.check_name(unit.removeprefix("mep@").removesuffix(".service")) == name
