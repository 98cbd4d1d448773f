"""Checks the values of an engine's options against the types that the engine names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from uep.config import ConfigError

Kinds: TypeAlias = "type | tuple[type, ...]"


def check(where: str, value: object, kinds: Kinds) -> None:
    """Checks that `value` is of one of `kinds`; true and false are not numbers.

    Raises:
        ConfigError: it is not; the text begins with `where`.
    """
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(NAMES.get(kind, kind.__name__) for kind in allowed)
        raise ConfigError(f"{where}: expected {names}, got {value!r}")


NAMES: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    dict: "a mapping",
}
"""What types are called where the reader writes YAML."""
