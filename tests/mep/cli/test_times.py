"""Times that people type after --until."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

import pytest

from mep.cli.times import until


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


NOW = datetime.datetime(2026, 3, 28, 17, 0, 30, tzinfo=datetime.timezone.utc)
"""18:00:30 in Berlin, in the night before summer time begins."""


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("18:01", "2026-03-28T17:01"),
        ("18:00", "2026-03-29T16:00"),  # tomorrow, when it is summer
        ("+2h", "2026-03-28T19:00:30"),
        ("+90m", "2026-03-28T18:30:30"),
        ("+1d12h", "2026-03-30T05:00:30"),
        (" +30s ", "2026-03-28T17:01"),
        ("2026-12-01", "2026-11-30T23:00"),
        ("2026-12-01T08:00", "2026-12-01T07:00"),
        ("2026-12-01 08:00", "2026-12-01T07:00"),
        ("2026-06-01T08:00", "2026-06-01T06:00"),
        ("2026-12-01T08:00Z", "2026-12-01T08:00"),
        ("2026-12-01T08:00-05:00", "2026-12-01T13:00"),
    ],
)
def test_what_is_meant(text: str, utc: str) -> None:
    meant = datetime.datetime.fromisoformat(f"{utc}+00:00")
    assert until(text, NOW.astimezone()) == int(meant.timestamp())


@pytest.mark.parametrize("text", ["", "+", "soon", "2h", "25:00", "18:60", "2026-13-01", "+99999999999d", "-2h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; say 18:00"):
        until(text, NOW.astimezone())


@pytest.mark.parametrize(("text", "why"), [("2026-03-28", "is over"), ("+0s", "is over"), ("2150-01-01", "too late")])
def test_what_is_no_end(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        until(text, NOW.astimezone())
