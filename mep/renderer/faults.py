"""What is wrong with options by the schema, one sentence for each value, for the person who sent them.

`options` calls `faults`. The words are ours throughout: whoever reads them knows neither JSON Schema nor Python.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import validators
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from mep.renderer.taken import no_such

MOST = 10
"""Sentences of one refusal."""
_MOST_ERRORS = 200
_SHOWN = 60
"""Characters of a value."""
_DESCRIBED = 200
"""Characters of a description, and of what a value may be."""

_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object of keys and values",
    "null": "null",
}


def faults(validator: Validator, options: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A sentence for each value that breaks the schema, at most MOST and one more.

    names: of all options that there are.

    Raises:
        Exception: of any kind; a pattern or a reference in the schema is none.
    """
    errors = itertools.islice(validator.iter_errors(options), _MOST_ERRORS)
    sentences = itertools.islice((sentence for error in errors for sentence in _told(error, names)), _MOST_ERRORS)
    found = list(dict.fromkeys(sentences))
    if len(found) > MOST:
        return [*found[:MOST], "There is more that does not fit."]
    return found


def given(options: Mapping[str, Any], validator: Validator, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that are None where the schema wants a value: that means that they are not given."""
    stated = schema.get("properties")
    if not isinstance(stated, Mapping):
        return dict(options)
    return {
        name: value
        for name, value in options.items()
        if value is not None or name not in stated or validator.evolve(schema=stated[name]).is_valid(None)
    }


def misfit(schema: object, value: Any) -> str | None:
    """What a schema takes instead of this value, in words; None when it takes the value, or cannot be applied."""
    if not isinstance(schema, Mapping):
        return None
    try:
        fits = validators.validator_for(schema)(schema).is_valid(value)
    except Exception:  # noqa: BLE001 - a pattern or a reference that is none is told elsewhere
        return None
    return None if fits else describe(schema) or "something else"


def _told(error: ValidationError, options: Sequence[str]) -> Iterator[str]:
    place = _place(error)
    value: Any = error.instance
    schema: Any = error.schema
    rule: Any = error.validator_value
    match error.validator:
        case "required":
            for name in rule:
                if name not in value:
                    yield f"{_named(error, name)} is missing{_takes(_property(schema, name))}."
        case "additionalProperties" | "unevaluatedProperties" if rule is False:
            stated = schema.get("properties")
            names = sorted(stated) if isinstance(stated, Mapping) else []
            inside = bool(error.absolute_path)
            for name in value:
                if name not in names and not _by_pattern(schema, name):
                    yield no_such(name, names, f" in {place}") if inside else no_such(name, options)
        case "dependentRequired":
            for name, others in rule.items():
                for other in others if name in value else ():
                    if other not in value:
                        yield f"{_named(error, other)} is missing: it is needed with {name!r}."
        case "anyOf" | "oneOf" if (branch := _meant(error)) is not None:
            for inner in branch:
                yield from _told(inner, options)
        case "propertyNames":
            yield f"{place} may not have a key {_shown(value)}."
        case "minProperties" | "maxProperties":
            least = "at least" if error.validator == "minProperties" else "at most"
            yield f"{place} has {len(value)} keys; {least} {rule} are needed."
        case _:
            takes = _takes(schema)
            yield f"{place} is {_shown(value)}{takes or ', which is not allowed'}."


def _meant(error: ValidationError) -> list[ValidationError] | None:
    """What is wrong by that branch of several which is for values of this type; None where several are, or none."""
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    fitting = [each for each in branches.values() if not any(i.validator == "type" and not i.path for i in each)]
    return fitting[0] if len(fitting) == 1 else None


def _place(error: ValidationError) -> str:
    """How the sender would call the value: `'image.name'`, `'nodes[2]'`."""
    text = ""
    for step in error.absolute_path:
        text += f"[{step}]" if isinstance(step, int) else f".{str(step)[:_SHOWN]}"
    return repr(text.removeprefix(".")[:_DESCRIBED]) if text else "user_endpoint_config"


def _named(error: ValidationError, name: str) -> str:
    """A key of the value that the error is about."""
    return repr(f"{_place(error)[1:-1]}.{name}" if error.absolute_path else name)


def _property(schema: Mapping[str, Any], name: str) -> Any:
    stated = schema.get("properties")
    return stated.get(name) if isinstance(stated, Mapping) else None


def _by_pattern(schema: Mapping[str, Any], name: str) -> bool:
    patterns = schema.get("patternProperties")
    return isinstance(patterns, Mapping) and any(re.search(each, name) for each in patterns)


def _takes(schema: Any) -> str:
    """`; it takes a whole number from 1 to 64 (processes that run tasks)`; nothing where a schema says nothing."""
    if not isinstance(schema, Mapping):
        return ""
    what = describe(schema)
    about = schema.get("description")
    about = f" ({' '.join(about.split()).rstrip('.')[:_DESCRIBED]})" if isinstance(about, str) and about.strip() else ""
    return f"; it takes {what[:_DESCRIBED]}{about}" if what else about


def describe(schema: Mapping[str, Any]) -> str:
    """What a value may be by the keywords of one schema, in words; empty where they say nothing."""
    if "const" in schema:
        return f"{_shown(schema['const'])} only"
    if isinstance(schema.get("enum"), list):
        return _one_of([_shown(each) for each in schema["enum"]])
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            ways = [describe(each) if isinstance(each, Mapping) else "" for each in schema[key]]
            return ", or ".join(ways) if all(ways) else ""
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    what = " or ".join(_KINDS.get(each, str(each)) for each in kinds)
    items = schema.get("items")
    if kinds == ["array"] and isinstance(items, Mapping) and (each := describe(items)):
        what = f"a list, each item {each}"
    return " ".join(filter(None, [what or "a value", *_limits(schema)])) if what or any(_limits(schema)) else ""


def _limits(schema: Mapping[str, Any]) -> list[str]:
    def of(key: str) -> str | None:
        value = schema.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return _shown(int(value) if isinstance(value, float) and value.is_integer() else value)

    least, most = of("minimum"), of("maximum")
    said = []
    if least is not None and most is not None:
        said.append(f"from {least} to {most}")
    else:
        said += [f"from {least} on"] * (least is not None) + [f"up to {most}"] * (most is not None)
    for key, words in (
        ("exclusiveMinimum", "above {}"),
        ("exclusiveMaximum", "below {}"),
        ("multipleOf", "in steps of {}"),
        ("minLength", "of at least {} characters"),
        ("maxLength", "of at most {} characters"),
        ("minItems", "of at least {} items"),
        ("maxItems", "of at most {} items"),
    ):
        if (value := of(key)) is not None:
            said.append(words.format(value))
    if schema.get("uniqueItems") is True:
        said.append("without repeats")
    for key, words in (("pattern", "that matches {}"), ("format", "of the form {}")):
        if isinstance(schema.get(key), str):
            said.append(words.format(schema[key]))
    return said


def _one_of(values: Sequence[str]) -> str:
    if len(values) == 1:
        return f"{values[0]} only"
    more = f" or one of {len(values) - 20} others" if len(values) > 20 else ""
    return f"one of {', '.join(values[:20])}{more}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
