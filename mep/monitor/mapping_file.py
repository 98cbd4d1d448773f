"""Watches the mapping file. Runs in a forked child of the manager: the file may lie on a network, which may hang.

Nobody tells of changes on a network file system, so the file is looked at again and again.
"""

from __future__ import annotations

import time
from pathlib import Path

from mep.profile.mapping_documents import NEVER_SEEN, Stamp

PERIOD = 5.0
"""Seconds between two looks."""
LOOKS = 12
"""After so many it says that nothing has changed: whoever hears nothing at all knows that it hangs."""


def changed(path: Path, seen: Stamp) -> Stamp:
    """Returns once the file's stamp is not `seen`, or after LOOKS; the stamp."""
    for _ in range(LOOKS):
        if seen != NEVER_SEEN:  # the first look is at once: a reload may have read an older text than was in force
            time.sleep(PERIOD)
        stamp = _stamp(path)
        if stamp != seen:
            return stamp
    return seen


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
