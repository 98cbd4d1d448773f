"""Names of units are escaped as systemd does."""

from __future__ import annotations

import pytest

from mep.monitor.containment import unit_names


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("prod", "prod"),
        ("my-site", "my\\x2dsite"),
        ("a_b.c:d", "a_b.c:d"),
        (".a.b", "\\x2ea.b"),
        ("a b@c\\", "a\\x20b\\x40c\\x5c"),
        ("é", "\\xc3\\xa9"),
    ],
)
def test_names_are_escaped_as_systemd_does(text: str, escaped: str) -> None:
    assert unit_names.escape(text) == escaped
