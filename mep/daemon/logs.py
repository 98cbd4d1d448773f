"""Where the manager's log goes, and in which form: its file, and standard error, which under systemd is the journal."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar

from mep.daemon.failed import Failed
from mep.monitor.log_file import LogFile
from wire.redaction import Redactor, redact


def file(path: Path, size: int, keep: int) -> logging.Handler:
    """The manager's log, of `size` bytes, and as many before as `keep` says. Raises Failed."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return LogFile(path, size, keep)
    except OSError as e:
        raise Failed(os.EX_CANTCREAT, f"{path}: cannot be written: {e.strerror}") from None


def send_to(handlers: list[logging.Handler], debug: bool, form: str = "text") -> None:
    """From now on everything is logged to `handlers`, without secrets. form: `log_format` of config.yaml."""
    for handler in handlers:
        lines = _JsonForm() if form == "json" else logging.Formatter(None if _is_journal(handler) else _FORM)
        handler.setFormatter(_JournalForm(lines) if _is_journal(handler) else lines)
        handler.addFilter(Redactor())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=handlers, force=True)
    logging.getLogger("asyncio").setLevel(logging.INFO)


_FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _JsonForm(logging.Formatter):
    """An object per line. What a decision of the audit trail has is in it, too."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        said = {"time": when, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info or record.exc_text:
            said["exception"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        return redact(json.dumps({**getattr(record, "facts", {}), **said}, default=str))


class _JournalForm(logging.Formatter):
    """The journal knows the time, and the level from a prefix (sd-daemon(3)): `journalctl -p warning` finds it."""

    _PRIORITIES: ClassVar = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        text = self._lines.format(record)
        return "\n".join(f"<{self._PRIORITIES.get(record.levelname, 6)}>{line}" for line in text.splitlines())


def _is_journal(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler and "JOURNAL_STREAM" in os.environ
