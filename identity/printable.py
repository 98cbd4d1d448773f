"""What strangers wrote, for a log line."""

from __future__ import annotations


def shown(value: object, limit: int = 80) -> str:
    """The value for a log line: escaped as Python writes it, ASCII only, shortened to about `limit` characters."""
    text = ascii(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else f"{text[:limit]}..."
