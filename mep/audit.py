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
    """Writes audit lines. Opened for appending once; a line is one write.

    Raises OSError from the constructor when `path` cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = (
            None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        )

    def record(self, event: str, request_id: str, **facts: object) -> None:
        """Adds a line. A line that cannot be written is an error in the log, not the end of the manager."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, "request": request_id, **facts}, default=str)
        log.info("%s", line)
        if self._file is not None:
            try:
                os.write(self._file, line.encode() + b"\n")
            except OSError as e:
                log.error("audit line could not be written: %s", e.strerror)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
