"""Times and texts of strangers as a page shows them; registered as filters of the templates."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from wire.printable import printable

LONGEST = 200
"""Characters of a name."""
LONGEST_LINE = 500
MOST_LINES = 12
"""Of a longer text, such as an error."""


def plain(text: object, longest: int = LONGEST) -> str:
    """Shows a stranger's text on one line: bounded, and what is not printable escaped."""
    shown = printable(str(text), longest + 1)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}\u2026"


def lines(text: object, most: int = MOST_LINES) -> str:
    """Shows a longer text of a stranger's, with its lines; the first of them."""
    whole = str(text)[: most * LONGEST_LINE]
    found = whole.replace("\r\n", "\n").replace("\t", "    ").split("\n")
    shown = [plain(line, LONGEST_LINE) for line in found[:most]]
    return "\n".join(shown if len(found) <= most and len(whole) == len(str(text)) else [*shown, "\u2026"])


def ago(then: float, now: float) -> str:
    """Says how long ago something was."""
    seconds = now - then
    if seconds < 1:
        return "just now"
    return f"{lasting(seconds)} ago" if seconds >= 10 else f"{seconds:.0f} s ago"


def lasting(seconds: float) -> str:
    """Says a duration in the unit that fits, as `40 s`, `3 min`, `2 h 5 min`, `4 d 1 h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)} s"
    hours, days = minutes // 60, minutes // 1440
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def stamp(then: float) -> str:
    """Writes a time as HTML's `datetime` has it, in UTC."""
    return datetime.fromtimestamp(then, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(then: float) -> str:
    """Writes a time for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(then))


def short_id(text: str) -> str:
    """Returns the part of an id by which people tell ids apart."""
    return text[:8]
