"""A folder that hangs, for tests: where there is no FUSE they are skipped, and fail in CI."""

from __future__ import annotations

from pathlib import Path

from lab.hanging import HangingFolder
from tests.conftest import need


def hang(path: Path) -> HangingFolder:
    """Makes what is asked of an empty folder hang; the caller stops it."""
    folder, reason = HangingFolder(path), ""
    try:
        folder.start()
    except OSError as e:
        reason = f"needs FUSE: {e}"
    need(not reason, reason)
    return folder
