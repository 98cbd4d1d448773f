"""Waits for what nobody tells: asks again and again, with short pauses, until it is so or patience ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.01
"""Seconds between two questions."""


def until(condition: Callable[[], T], what: str, patience: float = 30.0) -> T:
    """Waits until `condition()` is truthy, and returns its value.

    Raises:
        AssertionError: it was not within `patience` seconds; the text names `what`.
    """
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(PAUSE)
    return value


async def aiountil(condition: Callable[[], T], what: str, patience: float = 30.0) -> T:
    """As `until`, for tests that run in an event loop."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        await asyncio.sleep(PAUSE)
    return value
