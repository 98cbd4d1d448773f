"""How long to wait before the next attempt to connect: exponential, capped, with jitter.

The jitter keeps the endpoints of a whole site from coming back in the same instant after a broker restart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

LONGEST = 30.0
"""Seconds; no pause is longer, unless the caller says otherwise."""


def delays(first: float = 0.2, factor: float = 2.0, cap: float = LONGEST) -> Iterator[float]:
    """Seconds to wait before attempt 1, 2, 3, ...: without end, each between half and all of its ceiling."""
    ceiling = first
    while True:
        yield ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        ceiling = min(cap, ceiling * factor)
