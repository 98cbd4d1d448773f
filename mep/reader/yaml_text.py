"""YAML text -> plain values; keys with their lines, and none of them twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mep.profile.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A key as it is written, the number of its line, and its value."""

    key: str
    line: int
    value: Any


def load_yaml(path: Path, text: str) -> Any:
    """The value of YAML text, which was read from `path`. Raises ConfigError."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(path, [f"not valid YAML: {' '.join(str(e).split())}"]) from None
    except RecursionError:
        raise ConfigError(path, ["not valid YAML: nested too deeply"]) from None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        # What its constructors do with a date that is none, digits without end, and the like.
        raise ConfigError(path, [f"not valid YAML: a value cannot be read ({type(e).__name__}: {e})"]) from None


def load_entries(path: Path, text: str) -> list[Entry]:
    """The keys of YAML text, which was read from `path`, in their order; none for a text that says nothing.

    Raises:
        ConfigError: not YAML, no keys and values, or a key that is there twice.
    """
    data = load_yaml(path, text)
    if data is None:
        return []
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(data, dict) or not isinstance(top, yaml.MappingNode):
        raise ConfigError(path, ["expected keys and values (`display_name: My endpoint`)"])
    if problems := _twice(top, len(data)):
        raise ConfigError(path, problems)
    keys = [key for key, _ in top.value]
    return [
        Entry(str(key.value), key.start_mark.line + 1, value) for key, value in zip(keys, data.values(), strict=True)
    ]


def _twice(top: yaml.MappingNode, number: int) -> list[str]:
    """Keys that are there twice, of which YAML would silently drop one. `number`: how many there are without those."""
    sections = [(f"{key.value}.", node) for key, node in top.value if isinstance(node, yaml.MappingNode)]
    problems = []
    for prefix, node in [("", top), *sections]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                problems.append(f"line {key.start_mark.line + 1}: {prefix}{key.value}: {_TWICE}")
            seen.add(str(key.value))
    if not problems and len(top.value) != number:  # the same key in two ways of writing it
        problems.append(f"line {top.start_mark.line + 1}: a key {_TWICE}")
    return problems


_TWICE = "is there twice; leave one of them out"
