"""YAML text -> plain values; keys with their lines, and none of them twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep.reader import apart, parsers


@dataclass(frozen=True)
class Entry:
    """A key as it is written, the number of its line, and its value."""

    key: str
    line: int
    value: Any


def load_yaml(path: Path, text: str) -> Any:
    """The value of YAML text, which was read from `path`. Raises ConfigError."""
    return apart.parse(path, parsers.yaml_value, text)


def load_entries(path: Path, text: str) -> list[Entry]:
    """The keys of YAML text, which was read from `path`, in their order; none for a text that says nothing.

    Raises:
        ConfigError: not YAML, no keys and values, or a key that is there twice.
    """
    try:
        return [Entry(str(key), int(line), value) for key, line, value in apart.parse(path, parsers.yaml_entries, text)]
    except (ValueError, TypeError):
        raise apart.senseless(path) from None
