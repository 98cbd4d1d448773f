"""Recognizes functions whose bytecode is that of another Python.

Such bytecode does not fail: it kills the process that runs it. Each Python has its own numbers for instructions, and
leaves its own number of empty places after some of them. What is not recognized is mostly so simple that it runs on
both.
"""

from __future__ import annotations

import functools
import opcode
from types import CodeType
from typing import Any


def is_foreign(code: CodeType) -> bool:
    """Tells whether this bytecode, that of inner functions included, is certainly not of this Python."""
    return _IS_UNDERSTOOD and _is_foreign(code)


@functools.lru_cache(maxsize=256)
def _is_foreign(code: CodeType) -> bool:
    units, at, marked = code.co_code, 0, _MARK is None
    while at < len(units):
        places = _PLACES.get(units[at])
        end = at + 2 * (places or 0) + 2
        if places is None or any(units[at + 2 : end]) or end > len(units):
            return True
        marked = marked or units[at] == _MARK
        at = end
    if not marked:
        return True
    return any(_is_foreign(const) for const in code.co_consts if isinstance(const, CodeType))


def _places() -> dict[int, int]:
    """Counts the empty places that follow each instruction of this Python."""
    known: Any = getattr(opcode, "_inline_cache_entries", {})  # since 3.13 by name
    by_number = dict(enumerate(known)) if isinstance(known, list) else {opcode.opmap[n]: c for n, c in known.items()}
    return {number: by_number.get(number, 0) for name, number in opcode.opmap.items() if name != "CACHE"}


_PLACES = _places()
_MARK = opcode.opmap.get("RESUME")
"""An instruction that all bytecode has, since 3.11."""
_IS_UNDERSTOOD = not _is_foreign(_is_foreign.__wrapped__.__code__)
"""Whether what the module says is true of the Python that we run in; a future one may differ."""
