"""Waiting for what happens by itself: one way to wait, for the lab and the tests, and the same for event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 60.0
PAUSE = 0.02
"""Seconds between two questions."""


def until(
    condition: Callable[[], T],
    what: str,
    patience: float = PATIENCE,
    *,
    failed: Callable[[str], Exception] = AssertionError,
) -> T:
    """Asks `condition` again and again; its first answer that is true. An exception that it raises ends the waiting.

    Raises:
        what `failed` makes from a text that names `what`: `patience` seconds were not enough.
    """
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise failed(f"waited {patience:g} s in vain for {what}")
        time.sleep(PAUSE)
    return answer


async def aiountil(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The same in an event loop, which goes on meanwhile.

    Raises:
        AssertionError: `patience` seconds were not enough; the text names `what`.
    """
    deadline = time.monotonic() + patience
    while not (answer := condition()):
        assert time.monotonic() <= deadline, f"waited {patience:g} s in vain for {what}"
        await asyncio.sleep(PAUSE)
    return answer
