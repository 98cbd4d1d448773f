"""A picture of starts: a line for each, with the wait for the first heartbeat, the life after it, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub.page.views import Start
from hub.page.words import clock

WIDTH = 640
ROW = 14
BAR = 10
_LEAST = 2.0
"""Width of a part that is too short to be seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a line; `kind` is waiting, running or failed."""

    kind: str
    x: float
    y: float
    width: float
    height: float = BAR


@dataclass(frozen=True, slots=True)
class Picture:
    """All that the picture is drawn from; it covers the times from `begin` to `end`."""

    width: int
    height: int
    bars: tuple[Bar, ...]
    begin: str
    end: str
    alternative: str


def picture(starts: Sequence[Start], now: float) -> Picture | None:
    """Draws starts, one line for each in their order; nothing when there are none."""
    if not starts:
        return None
    begin = min(start.commanded_at for start in starts)
    span = max(now - begin, 1.0)

    def bar(kind: str, since: float, until: float, row: int) -> Bar:
        x = min(max(0.0, (since - begin) / span), 1.0) * (WIDTH - _LEAST)
        width = max(_LEAST, min((until - since) / span * WIDTH, WIDTH - x))
        return Bar(kind, round(x, 1), row * ROW + 2.0, round(width, 1))

    bars: list[Bar] = []
    for row, start in enumerate(starts):
        end = now if start.ended_at is None else start.ended_at
        reported = start.first_heartbeat_at
        bars.append(bar("waiting", start.commanded_at, end if reported is None else reported, row))
        if reported is not None:
            bars.append(bar("running", reported, end, row))
        if start.error is not None:
            bars.append(bar("failed", end, end, row))
    failed = sum(start.error is not None for start in starts)
    alternative = f"{len(starts)} starts from {clock(begin)} on, {failed} of them failed; the table has the same times."
    return Picture(WIDTH, len(starts) * ROW, tuple(bars), clock(begin), clock(now), alternative)
