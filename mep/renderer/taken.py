"""Which options a profile takes: the names that its templates read, and the properties of its schema.

`options` refuses or tells of others, in a child of the render server; `cli.slips` compares the two. Templates and
schemas are the admin's and trusted.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mep.renderer import template

RESERVED = ("_GC", "parent_config", "mapped_identity", "user_runtime")
"""What templates read and users cannot give."""

_OF_JSON_SCHEMA = ("https://json-schema.org/", "http://json-schema.org/")
_BESIDE = ("allOf", "anyOf", "oneOf")
_ONE = ("if", "then", "else")
_BY_KEY = ("dependentSchemas", "dependencies")
_MOST_SCHEMAS = 1000
_MOST_LISTED = 40
_LONGEST = 60
"""Characters of a name that are shown."""


@dataclass(frozen=True)
class Taken:
    """names: of options, in alphabetical order. stated: those of the schema. patterns: of further names, from the
    schema. certain: there are no others, as far as can be told from the texts."""

    names: tuple[str, ...]
    stated: frozenset[str]
    patterns: tuple[str, ...]
    certain: bool

    def is_stated(self, name: str) -> bool:
        """Whether the schema has this option. Raises re.error: a pattern of the schema is none."""
        return name in self.stated or any(re.search(each, name) for each in self.patterns)

    def unknown(self, given: Mapping[str, Any]) -> list[str]:
        """The names among those given that are not taken. Raises re.error: a pattern of the schema is none."""
        return [name for name in given if name not in self.names and not self.is_stated(name)]

    def listed(self) -> str:
        """A sentence that names them; nothing where none is known and there may be some."""
        if not self.names:
            return "This endpoint takes no options." if self.certain else ""
        more = f" and {len(self.names) - _MOST_LISTED} more" if len(self.names) > _MOST_LISTED else ""
        known = "" if self.certain else " that are known"
        return f"The options{known} are: {', '.join(self.names[:_MOST_LISTED])}{more}."


def taken(templates: Mapping[str, str], name: str, schema: Mapping[str, Any] | None) -> Taken:
    """What a profile takes whose template is `name`."""
    read, all_read = names_read(templates, name)
    stated, patterns, all_stated = _properties(schema)
    names = {*read, *stated}.difference(RESERVED)
    return Taken(tuple(sorted(names)), frozenset(stated), tuple(patterns), all_read and all_stated)


def names_read(templates: Mapping[str, str], name: str) -> tuple[frozenset[str], bool]:
    """The names that template `name`, and all that it brings in, read and do not set; whether there are no others."""
    return _names_read(tuple(templates.items()), name)


@functools.lru_cache(maxsize=1)
def _names_read(texts: tuple[tuple[str, str], ...], name: str) -> tuple[frozenset[str], bool]:
    templates = dict(texts)
    reached = new = {name: templates[name]}
    certain = True
    while new:
        others, open_ended = template.included(new)
        certain = certain and not open_ended
        wanted = templates if open_ended else others  # it may be any of them
        new = {other: templates[other] for other in wanted if other in templates and other not in reached}
        reached = reached | new
    found, all_read = template.variables(reached)
    return frozenset(found).difference(RESERVED), certain and all_read


def no_such(name: str, names: Sequence[str], where: str = "") -> str:
    """A sentence: there is no option of that name."""
    lower = {each.lower(): each for each in names}
    near = [lower[each] for each in difflib.get_close_matches(name[:_LONGEST].lower(), lower, 1)]
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"There is no option {name[:_LONGEST]!r}{where}{meant}"


def remote_references(schema: Any) -> list[str]:
    """The references in a schema that lead out of it, and not to one of JSON Schema's own."""
    parts = list(_all_parts(schema))
    own = tuple(part["$id"] for part in parts if isinstance(part.get("$id"), str) and part["$id"])
    found = [part["$ref"] for part in parts if isinstance(part.get("$ref"), str)]
    return [each for each in found if not each.startswith(("#", *_OF_JSON_SCHEMA, *own))]


def _all_parts(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a JSON value."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, Mapping):
            yield part
            pending += part.values()
        elif isinstance(part, list):
            pending += part


def _properties(schema: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[str], bool]:
    """The properties that a schema states for the options themselves, the patterns of further names, and whether this
    is all of it."""
    stated: dict[str, Any] = {}
    patterns: list[str] = []
    whole = True
    for count, part in enumerate(_parts(schema), 1):
        if part is None or count > _MOST_SCHEMAS:
            return stated, patterns, False
        if isinstance(part.get("properties"), Mapping):
            stated |= part["properties"]
        if isinstance(part.get("patternProperties"), Mapping):
            patterns += part["patternProperties"]
        whole = whole and not {"$dynamicRef", "$recursiveRef"} & part.keys()
    return stated, patterns, whole


def _parts(schema: Any) -> Iterator[Mapping[str, Any] | None]:
    """A schema, and all schemas that it applies to the same value; None in the place of one that is elsewhere."""
    pending, seen = [schema], set[int]()
    while pending:
        part = pending.pop()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        pending += [part.get(key) for key in _ONE]
        pending += [each for key in _BESIDE if isinstance(part.get(key), list) for each in part[key]]
        pending += [each for key in _BY_KEY if isinstance(part.get(key), Mapping) for each in part[key].values()]
        if isinstance(part.get("$ref"), str):
            target = _at(schema, part["$ref"])
            if target is None:
                yield None
            pending.append(target)


def _at(schema: Any, reference: str) -> Any:
    """What a reference within a schema points to; None for another."""
    place, steps = schema, reference.split("/")
    if steps[0] != "#":
        return None
    with contextlib.suppress(LookupError, TypeError, ValueError):
        for escaped in steps[1:]:
            step = escaped.replace("~1", "/").replace("~0", "~")
            place = place[int(step)] if isinstance(place, list) else place[step]
        return place
    return None
