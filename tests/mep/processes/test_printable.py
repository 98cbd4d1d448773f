"""What is foreign is printed so that no terminal obeys it and no line ends in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mep.processes.printable import as_ascii, escaped, quoted


def test_people_read_their_own_script() -> None:
    assert escaped("Grüße, 東京") == "Grüße, 東京"
    assert escaped("\x1b[2J\n\u202e") == "\\x1b[2J\\n\\u202e"


def test_a_quote_is_cut_and_ascii() -> None:
    assert quoted("a\n\ufffd") == "'a\\n\\ufffd'"
    assert quoted("x" * 100, 10) == "'xxxxxxxxx..."


def test_a_record_never_grows() -> None:
    assert as_ascii("é\n\0 ok".encode()) == "???? ok"


@given(st.text())
def test_no_text_gets_through_as_it_is_not_to(text: str) -> None:
    assert escaped(text).isprintable()
    assert quoted(text).isprintable()
    assert quoted(text).isascii()
    assert len(quoted(text)) < 90


@given(st.binary())
def test_no_bytes_get_through_as_they_are_not_to(data: bytes) -> None:
    assert as_ascii(data).isprintable()
    assert len(as_ascii(data)) == len(data)
