"""Where the manager's log goes, and in which form: its file, and standard error, which under systemd is the journal."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import ClassVar

from mep.cli.common import Failed
from mep.monitor.log_file import LogFile
from wire.redaction import Redactor


def file(path: Path) -> logging.Handler:
    """The manager's log; opened again when logrotate has moved it. Raises Failed."""
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return LogFile(path, encoding="utf-8")
    except OSError as e:
        raise Failed(os.EX_CANTCREAT, f"{path}: cannot be written: {e.strerror}") from None


def send_to(handlers: list[logging.Handler], debug: bool) -> None:
    """From now on everything is logged to `handlers`, without secrets."""
    for handler in handlers:
        handler.setFormatter(_JournalForm() if _is_journal(handler) else logging.Formatter(_FORM))
        handler.addFilter(Redactor())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=handlers, force=True)
    logging.getLogger("asyncio").setLevel(logging.INFO)


_FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _JournalForm(logging.Formatter):
    """The journal knows the time, and the level from a prefix (sd-daemon(3)): `journalctl -p warning` finds it."""

    _PRIORITIES: ClassVar = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "\n".join(f"<{self._PRIORITIES.get(record.levelname, 6)}>{line}" for line in text.splitlines())


def _is_journal(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler and "JOURNAL_STREAM" in os.environ
