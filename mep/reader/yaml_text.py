"""YAML text -> plain values; keys with their lines, and none of them twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep.profile.errors import ConfigError
from mep.reader import apart, parsers, plain


@dataclass(frozen=True)
class Entry:
    """A key as it is written, the number of its line, and its value."""

    key: str
    line: int
    value: Any


def load_yaml(path: Path, text: str) -> Any:
    """The value of YAML text, which was read from `path`. Raises ConfigError."""
    carried = apart.parse(path, parsers.yaml_value, text)
    try:
        return plain.value(carried)
    except _SENSELESS:
        raise _senseless(path) from None


def load_entries(path: Path, text: str) -> list[Entry]:
    """The keys of YAML text, which was read from `path`, in their order; none for a text that says nothing.

    Raises:
        ConfigError: not YAML, no keys and values, or a key that is there twice.
    """
    carried = apart.parse(path, parsers.yaml_entries, text)
    try:
        return [Entry(str(key), int(line), plain.value(value)) for key, line, value in carried]
    except _SENSELESS:
        raise _senseless(path) from None


_SENSELESS = (ValueError, TypeError, RecursionError)


def _senseless(path: Path) -> ConfigError:
    return ConfigError(path, ["cannot be parsed: the process that was to do it makes no sense"])
