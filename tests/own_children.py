"""The children of this process, whichever of its threads has started them, those that wait to be reaped included."""

from __future__ import annotations

import contextlib
from pathlib import Path


def own_children() -> set[int]:
    """Their pids."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found
