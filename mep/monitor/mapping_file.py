"""The mapping file as it is looked at again and again: nobody tells of changes on a network file system."""

from __future__ import annotations

from pathlib import Path

from mep.profile.mapping_documents import Stamp

PERIOD = 5.0
"""Seconds between two looks."""


def stamp(path: Path) -> Stamp:
    """What changes when the file does. In a forked child: its file system may hang."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
