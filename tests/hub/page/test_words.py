"""Texts of strangers and times, as pages show them."""

from __future__ import annotations

import pytest

from hub.page import words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cluster", "cluster"),
        ("a\u202eb\x1b[31m\n\ud800", "a\\u202eb\\x1b[31m\\n\\ud800"),
        ("x" * 10_000, "x" * 199 + "\u2026"),
        ("\n" * 150, "\\n" * 99 + "\\\u2026"),
        (None, "None"),
    ],
)
def test_a_name_is_bounded_and_steers_nothing(text, shown):
    assert words.plain(text) == shown


def test_of_a_long_text_the_first_lines_are_shown():
    assert words.lines("a\r\n\tb\n\x07") == "a\n    b\n\\x07"
    assert words.lines("\n".join(map(str, range(100)))).splitlines() == [*map(str, range(12)), "\u2026"]
    assert len(words.lines("x" * 10**6)) < 600
    assert len(words.lines(("x" * 1000 + "\n") * 1000)) < 12 * 502


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0.0 s"), (1.26, "1.3 s"), (59, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_said_in_the_unit_that_fits(seconds, said):
    assert words.lasting(seconds) == said


def test_times_are_in_utc():
    assert words.stamp(0) == "1970-01-01T00:00:00Z"
    assert words.clock(0) == "1970-01-01 00:00:00 UTC"
    assert words.ago(10, 10.5) == "just now"
