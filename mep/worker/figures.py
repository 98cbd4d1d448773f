"""Reads what a user endpoint says of its tasks and its engine (`uep/report_pipe.py`): the words of a user's process.

They are shown to admins and decide nothing. What is not of its form is left out.
"""

from __future__ import annotations

import json
from typing import Any

from mep.processes.printable import escaped

_MOST_TEXT = 80
_MOST_JOBS = 20
_NUMBERS = ("waiting", "running", "done", "workers", "blocks", "max_blocks", "idle_since")
_TEXTS = ("engine", "provider")
NOTHING: dict[str, Any] = {**dict.fromkeys((*_NUMBERS, *_TEXTS)), "batch_jobs": []}
"""Of one that has said nothing."""


def read(said: str) -> dict[str, Any]:
    """The figures: of each of its fields a value of the right kind, or None."""
    try:
        figures = json.loads(said) if said else {}
    except (ValueError, RecursionError):
        figures = {}
    if not isinstance(figures, dict):
        return NOTHING
    jobs = figures.get("batch_jobs")
    return {
        **{name: _number(figures.get(name)) for name in _NUMBERS},
        **{name: _text(figures.get(name)) for name in _TEXTS},
        "batch_jobs": [job for each in jobs[:_MOST_JOBS] if (job := _text(each))] if isinstance(jobs, list) else [],
    }


def _number(value: object) -> int | None:
    """A count, or a time in whole seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 2**53 else None  # no NaN is; an int may be too large for a float


def _text(value: object) -> str | None:
    return escaped(value[:_MOST_TEXT]) if isinstance(value, str) else None
