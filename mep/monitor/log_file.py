"""The manager's log file, on a disk that may be full: said once, and by `mep status`, in place of tracebacks."""

from __future__ import annotations

import logging
import logging.handlers
import sys


class LogFile(logging.handlers.WatchedFileHandler):
    """Opened again when logrotate has moved it. A line that cannot be written is left out; requests go on.

    trouble: why lines are left out now; empty when they are not.
    """

    trouble = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the line if it can be written."""
        before = self.trouble
        self.trouble = ""
        try:
            super().emit(record)
        except OSError:  # from opening it anew, or from closing the one before
            self.handleError(record)
        if self.trouble and self.trouble != before:
            self._tell_others()

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
