"""The manager's log file: bounded, and on a disk that may be full: told once, and by `mep status`."""

from __future__ import annotations

import contextlib
import itertools
import logging
import logging.handlers
import os
import sys
from pathlib import Path

_OLD = ".old"
"""Ends the names of those before: logrotate has `.1` and so on, and neither touches what the other has kept."""


class LogFile(logging.handlers.WatchedFileHandler):
    """Opened again when logrotate has moved it. A line that cannot be written is left out; requests go on.

    Once it has `size` bytes it is moved, and a new one begins; `keep` of those before are kept.
    trouble: why lines are left out now; empty when they are not.
    """

    trouble = ""

    def __init__(self, path: Path, size: int, keep: int) -> None:
        """Raises OSError."""
        super().__init__(path, encoding="utf-8")
        self._size = size
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line if it can be written."""
        before = self.trouble
        self.trouble = ""
        try:
            self._move_if_full()
            super().emit(record)  # opens it anew, if it has been moved
        except OSError:  # from moving it, from opening it anew, or from closing the one before
            self.handleError(record)
        if self.trouble and self.trouble != before:
            self._tell_others()

    def _move_if_full(self) -> None:
        """Raises OSError."""
        if self.stream is None or os.fstat(self.stream.fileno()).st_size < self._size:
            return
        path = Path(self.baseFilename).resolve()  # where a link leads the new one is to be, too
        with contextlib.suppress(FileNotFoundError):
            if not os.path.samestat(os.fstat(self.stream.fileno()), path.stat()):
                return  # it has been moved already
            if not self._keep:
                path.unlink()
                return
            names = [path, *(Path(f"{path}{_OLD}.{number}") for number in range(1, self._keep + 1))]
            for newer, older in reversed([*itertools.pairwise(names)]):
                with contextlib.suppress(FileNotFoundError):
                    newer.rename(older)

    def _tell_others(self) -> None:
        """Tells it where else the log goes, in the form that it has there."""
        text = f"{self.trouble}; lines are left out until that is mended"
        told = logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None)
        for other in logging.getLogger().handlers:
            if not isinstance(other, LogFile):
                other.handle(told)

    def handleError(self, record: logging.LogRecord) -> None:
        """Keeps the reason; what is no matter of the file is reported as usual."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.trouble = f"the log {self.baseFilename} cannot be written: {error.strerror or error}"
        else:
            super().handleError(record)


def trouble() -> str:
    """Why lines of the log are left out now; empty when they are not."""
    return "; ".join(h.trouble for h in logging.getLogger().handlers if isinstance(h, LogFile) and h.trouble)
