"""Values that a parser made, as JSON can carry them from one process to another, and back.

None, true, a number, a text   as they are
a list                         ["list", [...]]
keys and values                ["dict", [[key, value], ...]]; a key need not be a text
anything else (a date)         ["other", what Python shows of it]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Other:
    """A value of a kind that no key takes; only its look is known."""

    look: str

    def __repr__(self) -> str:
        return self.look


def plain(value: Any) -> Any:
    """The value as JSON can carry it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return ["list", [plain(item) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[plain(key), plain(item)] for key, item in value.items()]]
    return ["other", repr(value)]


def value(carried: Any) -> Any:
    """The value that was carried.

    Raises:
        ValueError, TypeError: that is no such form.
    """
    if carried is None or isinstance(carried, (bool, int, float, str)):
        return carried
    kind, what = carried
    if kind == "list":
        return [value(item) for item in what]
    if kind == "dict":
        return {value(key): value(item) for key, item in what}
    if kind == "other":
        return Other(str(what))
    raise ValueError(f"unknown kind of value: {kind!r:.80}")
