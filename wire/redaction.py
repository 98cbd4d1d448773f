"""Keeps passwords out of every text that people read.

Two layers: texts that may hold a URL pass through `redact`; and `Redactor`, a logging filter on each handler of our
programs, does the same to whatever is logged, including the tracebacks of libraries.
"""

from __future__ import annotations

import logging
import re

_USERINFO = re.compile(r"(://[^\s:/@\"']{0,256}):[^\s@\"']{0,256}@")  # bounded: strangers' texts pass through here
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_JSON_SECRET = re.compile(
    r"""(["'](?:enckey|password|client_secret|access_token|refresh_token)["']\s*:\s*["'])[^"']*"""
)


def redact(text: str) -> str:
    """`text` with the passwords of URLs, the tokens of HTTP headers and well-known secret fields replaced by `***`."""
    text = _USERINFO.sub(r"\1:***@", text)
    text = _BEARER.sub(r"\1 ***", text)
    return _JSON_SECRET.sub(r"\1***", text)


class Redactor(logging.Filter):
    """Redacts each record before a handler formats it. Add it to handlers: filters of loggers do not see children."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True
