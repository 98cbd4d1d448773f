"""Checks what a user sends before any of it meets the template: its values, and then the schema.

Used in a child of the render server. Schemas are the admin's and trusted; what they are applied to is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema

from mep.renderer.refusal import Unacceptable

MAX_DEPTH = 64
"""Lists and objects within each other."""
MAX_VALUES = 100_000
"""Values in user_endpoint_config, and in user_runtime: lists, objects, and what they hold."""

_RESERVED = ("_GC", "parent_config", "mapped_identity", "user_runtime")

_Place = tuple[Any, Any]
"""Where a value is: the place of the list or object that holds it, and the index or key. The first place has None."""


def check_values(name: str, value: object) -> None:
    """Refuses what YAML, a shell or another program further on could take for something else, or choke on."""
    for count, (place, depth, item) in enumerate(_walk(name, value), 1):
        wrong = _text_problem(place[1]) if isinstance(place[1], str) else None
        if wrong is not None:
            raise _unusable(place[0], f"a key {wrong}")
        if count > MAX_VALUES:
            raise _unusable(place, f"more than {MAX_VALUES} values in all")
        if depth > MAX_DEPTH:
            raise _unusable(place, f"nested too deeply (more than {MAX_DEPTH} lists or objects within each other)")
        wrong = _value_problem(item)
        if wrong is not None:
            raise _unusable(place, wrong)


def _walk(name: str, value: object) -> Iterator[tuple[_Place, int, object]]:
    """Each value with its place and the number of lists and objects around it and of itself."""
    pending: list[tuple[_Place, int, object]] = [((None, name), 0, value)]
    while pending:
        place, around, item = pending.pop()
        depth = around + isinstance(item, dict | list)
        yield place, depth, item
        if isinstance(item, dict):
            pending += [((place, key), depth, inner) for key, inner in item.items()]
        elif isinstance(item, list):
            pending += [((place, index), depth, inner) for index, inner in enumerate(item)]


def _value_problem(value: object) -> str | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number that a configuration can have"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "an integer beyond 64 bits"
    return None


def _text_problem(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError as e:
        return f"holds a lone surrogate (U+{ord(text[e.start]):04X}), which is no character"
    return None


def _unusable(place: _Place, problem: str) -> Unacceptable:
    steps: list[str] = []
    owner, step = place
    while owner is not None:
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:40]}")
        owner, step = owner
    reason = f"{step}{''.join(reversed(steps))[:500]}: {problem}"
    return Unacceptable("options", reason, f"Not accepted by this endpoint: {reason}.")


def check_options(options: Mapping[str, Any], schema: Mapping[str, Any] | None) -> None:
    """Refuses options with a reserved name, and those that break the schema."""
    for name in _RESERVED:
        if name in options:
            reason = f"{name!r} is a reserved name and cannot be given in user_endpoint_config"
            raise Unacceptable("options", reason, f"{reason}.")
    if schema is None:
        return
    validator = jsonschema.validators.validator_for(schema)(schema)
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(options))
    except (MemoryError, RecursionError):
        raise
    except Exception as e:  # noqa: BLE001 - a pattern or a reference in the schema that is none
        user = "This endpoint's schema cannot be applied to your user_endpoint_config; please tell its administrators."
        raise Unacceptable("options", f"the schema cannot be applied: {type(e).__name__}: {e}", user) from None
    if error is not None:
        reason = f"user_endpoint_config: {error.json_path[:500]}: {error.message}"
        raise Unacceptable("options", f"options break the schema: {reason}", f"Not accepted by this endpoint: {reason}")
