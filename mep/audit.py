"""The audit trail: one JSON line per decision, to the log and to `audit_log_path`.

Lines are for programs and for years later: `time`, `event`, `request`, and what the event knows (identity, account,
uid, pid, rule, stage, reason, status, seconds). Nothing secret is ever passed in.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path

log = logging.getLogger("mep.audit")


class AuditTrail:
    """Writes audit lines, each with one write to a file opened for appending; opened again when it has been rotated.

    Raises OSError from the constructor when `path` cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = None if path is None else _open(path)

    def record(self, event: str, request_id: str, **facts: object) -> None:
        """Adds a line. A line that cannot be written is an error in the log, not the end of the manager."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, "request": request_id, **facts}, default=str)
        log.info("%s", line)
        if self._path is not None:
            try:
                os.write(self._current(self._path), line.encode() + b"\n")
            except OSError as e:
                log.error("audit line could not be written: %s", e.strerror)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _current(self, path: Path) -> int:
        """The descriptor of what has the name now: logrotate renames, and the next line makes a new file."""
        if self._file is not None and not _has_name(self._file, path):
            self.close()
        if self._file is None:
            self._file = _open(path)
        return self._file


def _open(path: Path) -> int:
    # Not blocking: nobody may be waiting at the other end of what is no file.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def _has_name(file: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
