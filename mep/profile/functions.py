"""What an entry of `allowed_functions` says: the UUID of a function, and in a pinned list the SHA-256 of its code.

`UUID@sha256:HEX`; `wire.function_code` has what is hashed. Either all entries of a list have a hash or none has.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

MARK = "@sha256:"
"""Between UUID and hash."""
SHA256 = re.compile("[0-9a-f]{64}")


def ids(entries: Iterable[str]) -> list[str]:
    """The UUIDs of the entries, which is what the service is told."""
    return [entry.partition(MARK)[0] for entry in entries]


def pins(entries: Iterable[str] | None) -> dict[str, str]:
    """The SHA-256 of each function that is pinned, by its UUID."""
    parts = [entry.partition(MARK) for entry in entries or ()]
    return {function: digest for function, mark, digest in parts if mark}


def fingerprint(entries: Iterable[str] | None) -> str:
    """What tells two lists apart, on record; empty without a list."""
    return "" if entries is None else hashlib.sha256(" ".join(sorted(entries)).encode()).hexdigest()[:16]
