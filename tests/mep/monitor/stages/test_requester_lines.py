"""Which lines of a requester are written, and that none is lost of those that are only counted."""

from __future__ import annotations

import asyncio

import pytest

from lab.waiting import aiountil
from mep.monitor.stages import requester_lines
from mep.monitor.stages.quota import Clock
from mep.monitor.stages.requester_lines import HOUR, IN_FULL, RequesterLines

Told = list[tuple[str, str, dict[str, int]]]


def test_each_requester_has_its_own_lines_and_new_ones_after_an_hour() -> None:
    now, told = 0.0, Told()
    lines = RequesterLines(lambda *said: told.append(said), Clock(lambda: now))

    async def story() -> None:
        nonlocal now
        assert all(lines.in_full("a", "r", "received") for _ in range(IN_FULL))
        assert not lines.in_full("a", "r1", "received")
        assert not lines.in_full("a", "r1", "refused at stage identity")
        assert not lines.in_full("a", "r2", "received")
        assert lines.in_full("b", "r", "received")
        now = HOUR + 1
        assert not lines.in_full("a", "r3", "received"), "there is something to tell first"
        lines.close()
        assert told == [("a", "r3", {"received": 3, "refused at stage identity": 1})]
        assert lines.in_full("a", "r", "received")
        lines.close()
        assert len(told) == 1

    asyncio.run(story())


def test_what_was_counted_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requester_lines, "TELL_AFTER", 0.01)
    told = Told()
    lines = RequesterLines(lambda *said: told.append(said))

    async def story() -> None:
        for number in range(IN_FULL + 5):
            lines.in_full("a", f"r{number}", "received")
        await aiountil(lambda: told, "the counts")
        lines.in_full("a", "more", "received")
        await aiountil(lambda: len(told) == 2, "the next counts")

    asyncio.run(story())
    assert [counts for *_, counts in told] == [{"received": 5}, {"received": 1}]
