"""An endpoint's schema as a form, and what is typed there as user options.

A schema is a stranger's. Nothing in it is run here: no pattern is matched, no reference followed, and of its keywords
only those below are looked at, each once. What is not simple is asked for as JSON. The endpoint itself has the last
word, as it checks the options with the whole schema.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as also
from typing import Any

from wire.nesting import is_shallow

MOST_FIELDS = 60
"""Of a form; further options are asked for as JSON."""
MOST_CHOICES = 200
"""Of an enumeration that is offered as a list."""
DEEPEST = 32
"""Lists and objects in each other in what is typed as JSON; endpoints take no more than twice that."""
REST = "rest"
"""The name of the field for options that have no field of their own."""

_SCALARS = ("string", "integer", "number", "boolean")
_KNOWN = frozenset(
    [
        "$comment",
        "$schema",
        "additionalProperties",
        "const",
        "default",
        "deprecated",
        "description",
        "enum",
        "examples",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "multipleOf",
        "pattern",
        "properties",
        "readOnly",
        "required",
        "title",
        "type",
        "uniqueItems",
        "writeOnly",
    ]
)
"""Keywords that are shown or looked at. A value with any other is asked for as JSON."""
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_LONGEST_NUMBER = 60
_SHORT = 200
"""A text that may have so many characters has a field of one line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a value must keep to, as far as it is looked at here. None is no limit."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    shortest: int | None = None
    longest: int | None = None
    fewest: int | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One value to type. `kind` is text, line, integer, number, boolean, choice, list or json.

    `group` is the key of the object that the value belongs to. Of a list, `items` is the kind of each line.
    """

    name: str
    key: str
    kind: str
    group: str | None = None
    title: str = ""
    description: str = ""
    required: bool = False
    default: str | None = None
    pattern: str | None = None
    limits: Limits = Limits()
    choices: tuple[Any, ...] = ()
    items: str = ""
    schema: Any = also(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """An object of one level: its fields are asked for together."""

    key: str
    title: str
    description: str
    required: bool
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """All that is asked for, in the schema's order. `rest`: other options may be given, as JSON."""

    parts: tuple[Field | Group, ...] = ()
    rest: bool = True
    more_rules: bool = False
    """The schema has rules about all options together, which are not looked at here."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields, those of groups too."""
        return tuple(f for part in self.parts for f in (part.fields if isinstance(part, Group) else (part,)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What was typed: the options, and what is wrong, by the names of fields."""

    options: Mapping[str, Any]
    errors: Mapping[str, str]


def form_of(schema: Any) -> Form:
    """Makes the form of a schema; of one that is none, a form that asks for JSON."""
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties", {}), Mapping):
        return Form(more_rules=schema is not None)
    required = _names(schema.get("required"))
    parts: list[Field | Group] = []
    left = MOST_FIELDS
    all_shown = True
    for number, (key, value) in enumerate(schema.get("properties", {}).items()):
        part = _part(f"f{number}", key, value, required=key in required)
        size = len(part.fields) if isinstance(part, Group) else 1
        if size > left:
            all_shown = False
            break
        left -= size
        parts.append(part)
    rest = not all_shown or schema.get("additionalProperties") is not False or "patternProperties" in schema
    return Form(tuple(parts), rest, not schema.keys() <= _KNOWN | {"$id"})


def read(form: Form, typed: Mapping[str, str]) -> Answer:
    """Makes options of what was typed into the fields of a form, by their names."""
    options: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for part in form.parts:
        if isinstance(part, Field):
            _read_into(options, part, typed, errors)
            continue
        inner: dict[str, Any] = {}
        inside: dict[str, str] = {}
        for each in part.fields:
            _read_into(inner, each, typed, inside)
        if inner or part.required:
            options[part.key] = inner
            errors |= inside
    if form.rest:
        _read_rest(options, {part.key for part in form.parts}, typed.get(REST, ""), errors)
    return Answer(options, errors)


def _part(name: str, key: str, schema: Any, *, required: bool) -> Field | Group:
    """Makes a group of an object whose values are all simple, and else a field."""
    group = _simple(schema) and _type(schema) == "object" and isinstance(schema.get("properties"), Mapping)
    if not group or len(schema["properties"]) > MOST_FIELDS or schema.get("additionalProperties") is not False:
        return _field(name, key, schema, required=required)
    needed = _names(schema.get("required"))
    fields = tuple(
        _field(f"{name}.{number}", inner, value, required=inner in needed, group=key)
        for number, (inner, value) in enumerate(schema["properties"].items())
    )
    return Group(key, _text(schema.get("title")), _text(schema.get("description")), required, fields)


def _field(name: str, key: str, schema: Any, *, required: bool, group: str | None = None) -> Field:
    if not _simple(schema):
        known = schema if isinstance(schema, Mapping) else {}
        title, description = _text(known.get("title")), _text(known.get("description"))
        return Field(name, key, "json", group, title, description, required, schema=schema)
    kind, items, choices = _kind(schema)
    return Field(
        name,
        key,
        kind,
        group,
        _text(schema.get("title")),
        _text(schema.get("description")),
        required,
        _default(schema),
        schema["pattern"] if isinstance(schema.get("pattern"), str) and kind in ("text", "line") else None,
        _limits(schema),
        choices,
        items,
        schema if kind == "json" else None,
    )


def _kind(schema: Mapping[str, Any]) -> tuple[str, str, tuple[Any, ...]]:
    """Returns the kind of a field, of a list the kind of its items, and of a choice what there is to choose."""
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, Sequence) and not isinstance(choices, str):
        few = 0 < len(choices) <= MOST_CHOICES
        simple = few and all(each is None or isinstance(each, str | int | float) for each in choices)
        return ("choice", "", tuple(choices)) if simple else ("json", "", ())
    kind = _type(schema)
    if kind == "string":
        longest = _count(schema.get("maxLength"))
        one_line = "format" in schema or "pattern" in schema or (longest is not None and longest <= _SHORT)
        return ("line" if one_line else "text"), "", ()
    if kind in _SCALARS:
        return kind, "", ()
    if kind == "array":
        items = schema.get("items")
        simple = isinstance(items, Mapping) and items.keys() <= {"type", "title", "description", "$comment"}
        if simple and _type(items) in _SCALARS:
            return "list", _type(items), ()
    return "json", "", ()


def _simple(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.keys() <= _KNOWN


def _type(schema: Any) -> str:
    """Returns the one type that a value may have, besides null; nothing when there are several."""
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    if isinstance(kinds, list):
        kinds = [kind for kind in kinds if kind != "null"]
        kinds = kinds[0] if len(kinds) == 1 else None
    return kinds if isinstance(kinds, str) else ""


def _limits(schema: Mapping[str, Any]) -> Limits:
    return Limits(
        _number(schema.get("minimum")),
        _number(schema.get("maximum")),
        _number(schema.get("exclusiveMinimum")),
        _number(schema.get("exclusiveMaximum")),
        _count(schema.get("minLength")),
        _count(schema.get("maxLength")),
        _count(schema.get("minItems")),
        _count(schema.get("maxItems")),
    )


def _default(schema: Mapping[str, Any]) -> str | None:
    value = schema.get("default")
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else bounded_json(value, 500, indent=None)


def _names(value: Any) -> frozenset[str]:
    return frozenset(name for name in value if isinstance(name, str)) if isinstance(value, list) else frozenset()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """A bound that can be compared and shown; a number of thousands of digits is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -1e30 < value < 1e30 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _read_into(options: dict[str, Any], field: Field, typed: Mapping[str, str], errors: dict[str, str]) -> None:
    text = typed.get(field.name, "").replace("\r\n", "\n")
    if not text.strip():
        if field.required:
            errors[field.name] = "This endpoint needs a value here."
        return
    try:
        options[field.key] = _value(field, text)
    except ValueError as e:
        errors[field.name] = str(e)


def _value(field: Field, text: str) -> Any:
    """Makes a value of what was typed.

    Raises:
        ValueError: it does not fit; the text says what would, and has nothing of a stranger's.
    """
    limits = field.limits
    if field.kind == "choice":
        return _choice(field.choices, text)
    if field.kind == "json":
        return from_json(text)
    if field.kind == "list":
        values = [_scalar(field.items, line.strip()) for line in text.splitlines() if line.strip()]
        _check(len(values), "entries", limits.fewest, limits.at_most)
        return values
    value = _scalar("string" if field.kind in ("text", "line") else field.kind, text)
    if isinstance(value, str):
        _check(len(value), "characters", limits.shortest, limits.longest)
    elif not isinstance(value, bool):
        _check_number(value, limits)
    return value


def _choice(choices: Sequence[Any], text: str) -> Any:
    if not _INTEGER.fullmatch(text) or not 0 <= int(text) < len(choices):
        raise ValueError("Choose one of the list.")
    return choices[int(text)]


def _scalar(kind: str, text: str) -> Any:
    if kind == "string":
        return text
    text = text.strip()
    if kind == "boolean":
        if text not in ("true", "false"):
            raise ValueError("Expected true or false.")
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if kind == "integer":
        raise ValueError("Expected a whole number.")
    try:
        value = float(text) if len(text) <= _LONGEST_NUMBER and text.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("Expected a number.")
    return value


def _check_number(value: float, limits: Limits) -> None:
    if limits.least is not None and value < limits.least:
        raise ValueError(f"Expected {limits.least:g} or more.")
    if limits.above is not None and value <= limits.above:
        raise ValueError(f"Expected more than {limits.above:g}.")
    if limits.most is not None and value > limits.most:
        raise ValueError(f"Expected {limits.most:g} or less.")
    if limits.below is not None and value >= limits.below:
        raise ValueError(f"Expected less than {limits.below:g}.")


def _check(count: int, what: str, least: int | None, most: int | None) -> None:
    if least is not None and count < least:
        raise ValueError(f"Expected at least {least} {what}, got {count}.")
    if most is not None and count > most:
        raise ValueError(f"Expected at most {most} {what}, got {count}.")


def from_json(text: str) -> Any:
    """Reads what was typed as JSON.

    Raises:
        ValueError: it is none, or nested too deep.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("Nested too deep.") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"Not JSON: {e.msg} (line {e.lineno}, column {e.colno}).") from None
    except ValueError:
        raise ValueError("Not JSON: a number that cannot be read.") from None
    if not is_shallow(value, DEEPEST):
        raise ValueError("Nested too deep.")
    return value


def _no_constant(constant: str) -> None:
    raise ValueError(constant)


def _read_rest(options: dict[str, Any], keys: set[str], text: str, errors: dict[str, str]) -> None:
    if not text.strip():
        return
    try:
        value = from_json(text)
    except ValueError as e:
        errors[REST] = str(e)
        return
    if not isinstance(value, dict):
        errors[REST] = "Expected a JSON object, such as {}."
    elif keys & value.keys():
        errors[REST] = "An option in it has a field of its own above."
    else:
        options.update(value)


def bounded_json(value: Any, longest: int, *, indent: int | None = 2) -> str:
    """Writes JSON, in ASCII, and no more than `longest` characters of it: the rest is not even made."""
    written: list[str] = []
    size = 0
    # Not by the fast writer in C, which makes all of it: as for `indent`, so for None.
    for piece in json.JSONEncoder(indent=indent, check_circular=False).iterencode(value):
        written.append(piece[: longest + 1])
        size += len(piece)
        if size > longest:
            return "".join(written)[:longest] + " ..."
    return "".join(written)
