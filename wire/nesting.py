"""How deep values from strangers are: whoever walks or writes them by recursion must not run out of stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_shallow(value: Any, deepest: int) -> bool:
    """Tells whether no more than `deepest` mappings and lists are in each other; does not recurse itself."""
    level = [value]
    for _ in range(deepest + 1):
        containers = [each for each in level if isinstance(each, Mapping | list)]
        if not containers:
            return True
        level = [inner for each in containers for inner in (each.values() if isinstance(each, Mapping) else each)]
    return False
