"""Pythons of several versions that every account can run, and packages for workers in each of them.

`lab/setup pythons` makes both, beside the environment that we run in.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
_LOCK = Path(__file__).parents[1] / "requirements" / "runtime.txt"


def folder(version: str) -> Path:
    """The folder with the Python of this major and minor version, whether it is there or not."""
    return Path(sys.prefix).parent / "pythons" / version / "bin"


def wheels() -> Path:
    """The folder with the SDK, Parsl, and what they need, for each version; whether it is there or not."""
    return Path(sys.prefix).parent / f"wheels-for-workers-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"


def are_there() -> bool:
    """Tells whether `lab/setup pythons` has been here."""
    return wheels().is_dir() and any(folder(version).is_dir() for version in VERSIONS)
