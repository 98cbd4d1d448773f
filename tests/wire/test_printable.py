from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('it\'s "fine" \\ here', 'it\'s "fine" \\ here'),
        ("Zürich, 東京, x²", "Zürich, 東京, x²"),
        ("first\nsecond\r\tthird", r"first\nsecond\r\tthird"),
        ("\x1b[2J\x07\x00", r"\x1b[2J\x07\x00"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("\ud800", r"\ud800"),
        ("\N{PILE OF POO}", "\N{PILE OF POO}"),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text, 100) == shown


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 50))
def test_whatever_comes_is_one_short_line(text: str, longest: int) -> None:
    shown = printable(text, longest)
    assert len(shown) <= longest
    assert shown.isprintable()
    shown.encode()


def test_a_long_text_is_cut_before_it_is_looked_at() -> None:
    assert printable("\n" * 2**24, 5) == r"\n\n" + "\\"
