"""Tells the manager how the endpoint's life goes, on the descriptor `report_fd` of the hand-over.

One word is one line:

    ready     the endpoint has checked in
    working   the broker has its first result
    stopping  it takes no more tasks
    stopped   it has ended cleanly; the process ends now

The manager may be another one than the one that has started the endpoint: it knows only what the pipe tells.
"""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)


class ReportPipe:
    """Writes to `fd`; without one it writes nothing."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def tell(self, word: str) -> None:
        """Tells the manager. Never raises: the endpoint goes on without one."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, f"{word}\n".encode())
        except OSError as e:
            log.warning("the manager cannot be told %r: %s", word, e.strerror)
