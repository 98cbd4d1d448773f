"""Checks what a user sends before any of it meets the template: its values, and then the schema.

Used in a child of the render server. Schemas are the admin's and trusted; what they are applied to is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
from jsonschema.protocols import Validator

from mep.renderer import faults
from mep.renderer.refusal import Unacceptable
from mep.renderer.taken import RESERVED, no_such, taken

MAX_DEPTH = 64
"""Lists and objects within each other."""
MAX_VALUES = 100_000
"""Values in user_endpoint_config, and in user_runtime: lists, objects, and what they hold."""

_PLAIN = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.:,@+-]{0,127})?", re.ASCII)
"""No space, quote, slash or sign by which a shell, a job script or a program takes more than one word from it."""

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


def check_plain(options: Mapping[str, Any], schema: Mapping[str, Any] | None) -> None:
    """Refuses texts that could become code in a template: where functions are pinned, options are no way round them.

    A text is a plain word, and one that the schema has narrowed: a single word, too, is a command or a package's name.
    """
    for place, _, item in _walk("user_endpoint_config", options):
        key = place[1] if place[0] is not None else ""
        if any(isinstance(text, str) and not _PLAIN.fullmatch(text) for text in (key, item)):
            problem = "more than a plain word, which an endpoint with pinned functions does not take: letters, digits"
            raise _unusable(place, f"{problem} and . : , @ + - _ within it")
    validator = jsonschema.validators.validator_for(schema or {})(schema or {})
    properties = (schema or {}).get("properties")
    for name, value in options.items():
        if not _is_narrowed(validator, properties.get(name) if isinstance(properties, dict) else None, value):
            problem = "a text, which an endpoint with pinned functions takes only where its schema names what it may be"
            raise _unusable(((None, "user_endpoint_config"), name), f"{problem} (enum, const or pattern)")


def _is_narrowed(validator: Validator, schema: object, value: Any) -> bool:
    """Whether each text in a value is one that its place in the schema names.

    The keywords are applied here once more: beside `prefixItems`, or in an older form of schemas beside `$ref`, they
    may be there and hold the value to nothing.
    """
    known = schema if isinstance(schema, dict) else {}
    names = {key: known[key] for key in ("enum", "const", "pattern") if key in known and key in validator.VALIDATORS}
    if not isinstance(value, str):
        names.pop("pattern", None)
    if names:
        return bool(validator.evolve(schema=names).is_valid(value))
    if isinstance(value, list):
        return all(_is_narrowed(validator, known.get("items"), each) for each in value)
    if isinstance(value, dict):
        inner = known.get("properties")
        named = inner if isinstance(inner, dict) else {}
        return all(key in named and _is_narrowed(validator, named[key], each) for key, each in value.items())
    return not isinstance(value, str)


def plain_only(value: Any) -> Any:
    """The value with nothing in place of each text that `check_plain` would refuse."""
    if isinstance(value, dict):
        return {key: plain_only(inner) for key, inner in value.items() if _PLAIN.fullmatch(key)}
    if isinstance(value, list):
        return [plain_only(inner) for inner in value]
    return "" if isinstance(value, str) and not _PLAIN.fullmatch(value) else value


def check_options(options: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The options as the template is to have them, and what their sender is to know of them: nothing, or sentences.

    profile: `template`, `templates`, `schema`, and in `config` the key `unknown_options`.

    Raises:
        Unacceptable: a reserved name, a name that nothing takes where that is to be refused, a value that breaks the
            schema.
    """
    for name in RESERVED:
        if name in options:
            reason = f"{name!r} is a reserved name and cannot be given in user_endpoint_config"
            raise Unacceptable("options", reason, f"{reason}.")
    try:
        return _checked(options, profile)
    except (MemoryError, RecursionError, Unacceptable):
        raise
    except Exception as e:  # noqa: BLE001 - a pattern or a reference in the schema that is none
        user = "This endpoint's schema cannot be applied to your user_endpoint_config; please tell its administrators."
        raise Unacceptable("options", f"the schema cannot be applied: {type(e).__name__}: {e}", user) from None


def _checked(options: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    schema, wanted = profile["schema"], profile["config"]["unknown_options"]
    takes = taken(profile["templates"], profile["template"], schema)
    given, faults_of_schema = dict(options), list[str]()
    if schema is not None:
        validator = jsonschema.validators.validator_for(schema)(schema)
        given = faults.given(options, validator, schema)
        faults_of_schema = faults.faults(validator, given, takes.names)
    unknown = [] if wanted == "ignore" else [no_such(name, takes.names) for name in takes.unknown(given)[: faults.MOST]]
    told = dict.fromkeys([*unknown, *faults_of_schema, takes.listed() if unknown else ""])
    text = " ".join(filter(None, told))
    if faults_of_schema or (unknown and wanted == "refuse" and takes.certain):
        raise Unacceptable("options", f"user_endpoint_config: {text}", f"Not accepted by this endpoint: {text}")
    return given, text
