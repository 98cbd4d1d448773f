"""Text that other processes wrote, for logs, records and people: nothing in it steers a terminal or ends a line.

Used in the monitor for what helpers, mapping programs and user endpoints say. `privileged.session` has a function of
its own for what PAM modules say: what runs there between fork and exec imports nothing else.
"""

from __future__ import annotations


def escaped(text: str) -> str:
    """The text with an escape (`\\x1b`) for each character that does not print. For people, who may use any script."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(text: str, limit: int = 80) -> str:
    """The text in quotes, as ASCII with escapes, cut to about `limit` characters. For a part of a message."""
    quote = ascii(text[: limit + 1])
    return quote if len(quote) <= limit else f"{quote[:limit]}..."


def as_ascii(data: bytes) -> str:
    """The bytes as ASCII, a question mark for each that does not print. For records: it never grows."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in data.decode("ascii", "replace"))
