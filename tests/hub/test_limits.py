"""How many requests a client may have: under way, and in a minute."""

from __future__ import annotations

import pytest

from hub import limits
from hub.limits import Limits, Turns
from hub.web import TooMany


def test_requests_under_way_of_one_client():
    turns, scopes = Turns(Limits(requests_at_once=2)), [{}, {}, {}, {}]
    turns.begin(scopes[0], "alice")
    turns.begin(scopes[0], "alice")
    turns.begin(scopes[1], "alice")
    with pytest.raises(TooMany, match="More than 2"):
        turns.begin(scopes[2], "alice")
    turns.begin(scopes[3], "bob")
    turns.end(scopes[2])
    turns.end(scopes[1])
    turns.end(scopes[1])
    turns.begin(scopes[2], "alice")
    with pytest.raises(TooMany):
        turns.begin({}, "alice")


def test_requests_of_one_client_in_a_minute(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    turns = Turns(Limits(requests_per_minute=6))

    def served() -> int:
        count = 0
        for _ in range(10):
            scope = {}
            try:
                turns.begin(scope, "alice")
            except TooMany:
                continue
            turns.end(scope)
            count += 1
        return count

    assert served() == 6
    now[0] += 20
    assert served() == 2
    now[0] += 3600
    assert served() == 6
    turns.begin({}, "bob")
