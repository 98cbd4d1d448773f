"""What parsers (YAML, Jinja, JSON Schema, mapping documents) say of a text; run in a process without rights (`apart`).

Everything here takes texts and returns values that `plain` can carry. What parses is loaded here, and nowhere in the
process that asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def yaml_value(text: str) -> Any:
    """The value of YAML text. Raises Unreadable."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise Unreadable(f"not valid YAML: {' '.join(str(e).split())}") from None
    except RecursionError:
        raise Unreadable("not valid YAML: nested too deeply") from None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        # What its constructors do with a date that is none, digits without end, and the like.
        raise Unreadable(f"not valid YAML: a value cannot be read ({type(e).__name__}: {e})") from None


def yaml_entries(text: str) -> list[list[Any]]:
    """The keys of YAML text, in their order, with their lines and values; none for a text that says nothing.

    Raises:
        Unreadable: not YAML, no keys and values, or a key that is there twice.
    """
    import yaml

    data = yaml_value(text)
    if data is None:
        return []
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(data, dict) or not isinstance(top, yaml.MappingNode):
        raise Unreadable("expected keys and values (`display_name: My endpoint`)")
    if problems := _twice(top, len(data)):
        raise Unreadable(*problems)
    keys = [key for key, _ in top.value]
    return [[str(key.value), key.start_mark.line + 1, value] for key, value in zip(keys, data.values(), strict=True)]


def list_places(text: str, key: str) -> dict[str, Any] | None:
    """Where in YAML text the list of a key is; None: there is no such key.

    `whole` and `items`: the places where they begin and end. `flow`: it is in brackets. `column`: that of its dashes.

    Raises:
        Unreadable: not YAML.
    """
    import yaml

    yaml_value(text)
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    for name, node in top.value if isinstance(top, yaml.MappingNode) else ():
        if name.value == key:
            items = node.value if isinstance(node, yaml.SequenceNode) else []
            return {
                "whole": [node.start_mark.index, node.end_mark.index],
                "items": [[item.start_mark.index, item.end_mark.index] for item in items],
                "flow": bool(getattr(node, "flow_style", False)),
                "column": node.start_mark.column,
            }
    return None


def template_problem(templates: Mapping[str, str]) -> list[str] | None:
    """The first of these templates that is none, and what is wrong with it."""
    from mep.renderer.template import syntax_problem

    for name in templates:
        if wrong := syntax_problem(templates, name):
            return [name, wrong]
    return None


def included(templates: Mapping[str, str]) -> list[Any]:
    """The names of files that these templates bring in, and whether some are only known when they are rendered."""
    from mep.renderer import template

    return list(template.included(templates))


def schema_problem(text: str) -> str | None:
    """What keeps a JSON object from being a JSON schema; None when nothing does."""
    import jsonschema

    schema = json.loads(text)
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as e:
        return f"not a JSON schema: {e.json_path}: {e.message}"
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as e:  # a "$schema" that names nothing
        return f"not a JSON schema: {type(e).__name__}: {e}"
    return None


def mapping_documents(text: str, source: str) -> dict[str, Any]:
    """What mapping documents, which were read from `source`, name and hint at.

    hints: [where, text, suggestion] of each. passed_over: those that tell of a document that does not count.
    programs: of each its `argv`, `run_as`, the `rule` as people know it, its `line`, and the number of its `document`.

    Raises:
        Unreadable: they are not in order.
    """
    from identity.jsontext import DocumentError
    from identity.mapper import Mapper

    try:
        mapper = Mapper.parse(text, source)
    except DocumentError as e:
        where = "" if e.line is None else f"line {e.line}: "
        raise Unreadable(f"{where}{e.path + ': ' if e.path else ''}{e.problem}; {e.remedy}") from None
    programs = [
        {
            "argv": list(document.command),
            "run_as": document.run_as,
            "rule": str(document.rule),
            "line": document.rule.line,
            "document": document.rule.document,
        }
        for document in mapper.programs
    ]
    return {
        "hints": [[str(each.where), each.text, each.suggestion] for each in mapper.hints],
        "passed_over": [str(each) for each in mapper.hints if each.passed_over],
        "programs": programs,
    }


class Unreadable(Exception):
    """The text is not what it must be; `args` are the problems."""


def _twice(top: Any, number: int) -> list[str]:
    """Keys that are there twice, of which YAML would silently drop one. `number`: how many there are without those."""
    import yaml

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
