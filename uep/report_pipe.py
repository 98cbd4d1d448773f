"""Tells the manager how the endpoint's life goes, on the descriptor `report_fd` of the hand-over.

One word is one line:

    ready     the endpoint has checked in
    working   the broker has its first result
    stopping  it takes no more tasks
    again     tasks wait for it that it cannot run any more: another one is needed when it has ended
    stopped   it has ended cleanly; the process ends now
    trouble … what keeps it from checking in, for the admin; the first only
    figures … what it works on, a JSON object in one line, for people; see `figures`
    jobs …    batch jobs that run and from which no worker comes, for the admin; nothing more when that is over
    failed …  why it ends otherwise, in the words that the user gets, and after a tab what only the admin gets: one
              line, bounded

The manager may be another one than the one that has started the endpoint: it knows only what the pipe tells.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sys
import termios
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

LONGEST = 1500
"""Bytes of each part: a line that is shorter than a page is written at once, and read at once."""


class ReportPipe:
    """Writes to `fd`; without one it writes nothing."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def failed(self, reason: str, detail: str = "") -> None:
        """Tells the manager why the endpoint ends; `detail` is for the admin only. Never raises."""
        self.tell("failed " + "\t".join(_bounded(text) for text in (reason, detail) if text))

    def trouble(self, text: str) -> None:
        """Tells the manager what keeps the endpoint from checking in. Never raises."""
        self.tell(f"trouble {_bounded(text)}")

    def jobs(self, text: str) -> None:
        """Tells the manager from which jobs no worker comes. Never raises."""
        self.tell(f"jobs {_bounded(text)}")

    def figures(self, said: Mapping[str, Any]) -> bool:
        """Tells the manager what the endpoint works on; whether that was possible now. Never raises.

        Only once what was told before has been heard: a manager that is away finds one line, and room for words.
        """
        line = json.dumps(said)
        with contextlib.suppress(OSError):
            if self._fd is not None and len(line) <= LONGEST and not _unread(self._fd):
                os.write(self._fd, f"figures {line}\n".encode())
                return True
        return False

    def tell(self, word: str) -> None:
        """Tells the manager. Never raises: the endpoint goes on without one."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, f"{word}\n".encode())
        except OSError as e:
            log.warning("the manager cannot be told %.40r: %s", word, e.strerror)


def _unread(fd: int) -> int:
    """Counts the bytes in the pipe. Raises OSError."""
    counted = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, counted)
    return int.from_bytes(counted, sys.byteorder)


def _bounded(text: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in text)
    return line.encode()[:LONGEST].decode(errors="ignore")
