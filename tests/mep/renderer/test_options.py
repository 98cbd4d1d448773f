"""Which options a profile takes, and the words in which others are refused: what a scientist reads of a slip."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mep.renderer import answer, faults
from mep.renderer import taken as taken_module
from mep.renderer.taken import remote_references, taken

TEMPLATE = "engine: {n: {{ workers | default(1) }}, a: {{ ACCOUNT }}, i: {{ image | default('x') }}}\n"
SCHEMA = {
    "required": ["ACCOUNT"],
    "properties": {
        "ACCOUNT": {"type": "string", "maxLength": 20, "description": "The allocation that is charged."},
        "workers": {"type": "integer", "minimum": 1, "maximum": 64, "description": "processes"},
        "ratio": {"type": "number", "exclusiveMinimum": 0},
        "partition": {"enum": ["debug", "gpu"]},
        "kind": {"const": "a"},
        "nodes": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "image": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}},
        },
        "extra": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"x": {"type": "integer"}}}]},
        "empty": {"type": ["string", "null"]},
    },
    "patternProperties": {"^X_": {"type": "string"}},
    "dependentRequired": {"ratio": ["partition"]},
}
CLOSED = {**SCHEMA, "additionalProperties": False}
ALL = "The options are: ACCOUNT, empty, extra, image, kind, nodes, partition, ratio, workers."
GOOD = {"ACCOUNT": "phys"}


def say(
    options: dict[str, Any],
    schema: dict[str, Any] | None = None,
    wanted: str = "refuse",
    template: str = TEMPLATE,
    **others: str,
) -> tuple[bool, list[str]]:
    """Whether it is granted, and the texts that come back."""
    texts = {"t": template, **others}
    profile = {"template": "t", "templates": texts, "schema": schema, "config": {"unknown_options": wanted}}
    files = [json.dumps(each).encode() for each in (profile, options, {}, {"mapped_identity": {}, "env": {}})]
    granted, text = answer.answer(files)
    return granted, text.decode().split("\0")


def refused(*arguments: Any, **more: Any) -> str:
    """What the user reads."""
    granted, texts = say(*arguments, **more)
    assert not granted
    return texts[2].removeprefix("Not accepted by this endpoint: ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({**GOOD, "workers": 65}, "'workers' is 65; it takes a whole number from 1 to 64 (processes)."),
        ({**GOOD, "workers": "4"}, "'workers' is \"4\"; it takes a whole number from 1 to 64 (processes)."),
        ({**GOOD, "workers": True}, "'workers' is true; it takes a whole number from 1 to 64 (processes)."),
        ({}, "'ACCOUNT' is missing; it takes a text of at most 20 characters (The allocation that is charged)."),
        ({**GOOD, "partition": "gpus"}, '\'partition\' is "gpus"; it takes one of "debug", "gpu".'),
        ({**GOOD, "kind": 1}, "'kind' is 1; it takes \"a\" only."),
        ({**GOOD, "nodes": ["a", 2]}, "'nodes[1]' is 2; it takes a text."),
        (
            {**GOOD, "nodes": ["a", "b", "c"]},
            '\'nodes\' is ["a", "b", "c"]; it takes a list, each item a text of at most 2 items.',
        ),
        ({**GOOD, "image": {}}, "'image.name' is missing; it takes a text that matches ^[a-z]+$."),
        ({**GOOD, "image": {"name": "a", "Nam": 1}}, "There is no option 'Nam' in 'image'; did you mean 'name'?"),
        ({**GOOD, "extra": {"x": "1"}}, "'extra.x' is \"1\"; it takes a whole number."),
        ({**GOOD, "extra": 3}, "'extra' is 3; it takes a text, or an object of keys and values."),
        ({**GOOD, "X_A": 3}, "'X_A' is 3; it takes a text."),
        ({**GOOD, "ratio": 1.5}, "'partition' is missing: it is needed with 'ratio'."),
        ({**GOOD, "ratio": 0, "partition": "gpu"}, "'ratio' is 0; it takes a number above 0."),
        (
            {**GOOD, "image": {"name": "A" * 99}},
            f"'image.name' is \"{'A' * 59}...; it takes a text that matches ^[a-z]+$.",
        ),
        (
            {"workers": 0, "partition": 1},
            """'ACCOUNT' is missing; it takes a text of at most 20 characters (The allocation that is charged). \
'workers' is 0; it takes a whole number from 1 to 64 (processes). 'partition' is 1; it takes one of "debug", "gpu".""",
        ),
    ],
)
def test_each_value_that_does_not_fit_is_a_sentence(options: dict[str, Any], told: str) -> None:
    assert sorted(refused(options, SCHEMA).rstrip(".").split(". ")) == sorted(told.rstrip(".").split(". "))


@pytest.mark.parametrize("schema", [None, SCHEMA, CLOSED])
def test_an_option_that_nothing_takes(schema: dict[str, Any] | None) -> None:
    listed = ALL if schema else "The options are: ACCOUNT, image, workers."
    told = refused({**GOOD, "wrokers": 4}, schema)
    assert told == f"There is no option 'wrokers'; did you mean 'workers'? {listed}"


def test_all_faults_at_once() -> None:
    told = refused({"wrokers": 4, "account": "phys", "ratio": "x"}, CLOSED)
    for each in (
        "'wrokers'; did you mean 'workers'?",
        "'account'; did you mean 'ACCOUNT'?",
        "'ratio' is \"x\"",
        "'ACCOUNT' is missing",
    ):
        assert each in told
    assert told.endswith(ALL) and told.count("'wrokers'") == 1


def test_no_flood_of_words() -> None:
    options = {f"o{i}": i for i in range(50_000)}
    assert len(refused({**GOOD, **options}, SCHEMA)) < 1500
    assert refused({**GOOD, "nodes": list(range(20_000))}, SCHEMA).endswith("There is more that does not fit.")


@pytest.mark.parametrize("nested", [False, True])
def test_names_without_end_are_not_all_compared(monkeypatch: pytest.MonkeyPatch, nested: bool) -> None:
    """To find what is meant by each took minutes of a processor: only as many are looked at as may be told."""
    compared = list[str]()

    def no_such(name: str, *more: Any) -> str:
        compared.append(name)
        return taken_module.no_such(name, *more)

    monkeypatch.setattr(faults, "no_such", no_such)
    options = {f"no such option {i}": i for i in range(20_000)}
    given, schema = ({"image": {"name": "a", **options}}, SCHEMA) if nested else (options, CLOSED)
    assert refused({**GOOD, **given}, schema).count("There is no option") == 10
    assert 10 < len(compared) < 1000


def test_limits_are_told_to_the_digit() -> None:
    schema = {"properties": {"workers": {"type": "integer", "minimum": -(10**400), "maximum": 1234567}}}
    told = refused({**GOOD, "workers": 1234568}, schema)
    assert told.endswith("to 1234567.") and "e+" not in told
    assert "from 0.25 to 1.5" in refused(
        {**GOOD, "workers": 2}, {"properties": {"workers": {"minimum": 0.25, "maximum": 1.5}}}
    )
    assert "up to 4." in refused({**GOOD, "workers": 5}, {"properties": {"workers": {"maximum": 4.0}}})


def test_where_it_is_warned_of_or_ignored() -> None:
    granted, texts = say({**GOOD, "wrokers": 4}, SCHEMA, "warn")
    assert granted and texts[1] == f"There is no option 'wrokers'; did you mean 'workers'? {ALL}"
    assert say({**GOOD, "wrokers": 4}, SCHEMA, "ignore") == (True, texts[:1])
    assert "There is no option 'wrokers'" in refused({**GOOD, "wrokers": 4}, CLOSED, "ignore")  # by the schema


def test_the_warning_is_told_with_what_is_missing() -> None:
    told = refused({"ACOUNT": "phys"}, None, "warn")
    assert told.startswith("An option is missing from user_endpoint_config: 'ACCOUNT' is undefined. There is no option")
    assert "did you mean 'ACCOUNT'?" in told


@pytest.mark.parametrize(
    "text",
    [
        "{% include 'other' %}",
        "{% extends 'other' %}",
        "{% import 'other' as o with context %}",
        "{% from 'other' import m with context %}",
        "{% include ['nowhere', 'other'] %}",
    ],
)
def test_what_other_files_read_is_taken(text: str) -> None:
    texts = {"t": TEMPLATE + text, "other": "{{ Q | default(1) }}{% macro m() %}{% endmacro %}"}
    assert taken(texts, "t", None).names == ("ACCOUNT", "Q", "image", "workers")
    assert "'Q'" in refused({**GOOD, "Q": "x"}, None, template=TEMPLATE, other="{{ Q }}")  # nobody includes it


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, "# {% include 'o' ~ ACCOUNT ignore missing %}"),
        ({"$dynamicRef": "#x", "$defs": {"x": {"$dynamicAnchor": "x"}}}, ""),
    ],
)
def test_where_it_cannot_be_known_nothing_is_refused(schema: dict[str, Any] | None, text: str) -> None:
    granted, texts = say({**GOOD, "wrokers": 4}, schema, template=TEMPLATE + text)
    assert granted and "did you mean 'workers'?" in texts[1]
    assert "The options that are known are: " in texts[1]


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"properties": {"Q": {}}}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"properties": {"Q": {}}}, {"$ref": "#/$defs/a"}]}}},
        {"if": {"required": ["Q"]}, "then": {"properties": {"Q": {}}}},
        {"dependentSchemas": {"ACCOUNT": {"properties": {"Q": {}}}}},
        {"patternProperties": {"^[A-Z]$": {}}},
    ],
)
def test_what_the_schema_names_anywhere_is_taken(schema: dict[str, Any]) -> None:
    assert say({**GOOD, "Q": "x"}, schema) == say(GOOD, schema)
    assert "'R2'" in refused({**GOOD, "R2": "x"}, schema)


def test_what_may_be_brought_in_is_taken() -> None:
    """Neither refused nor told of: the name of the file, and so the option, is known once it is rendered."""
    for text in ("{% include ['o' ~ workers, 'nowhere'] ignore missing %}", "{% include 'o' ~ workers %}"):
        texts = {"template": TEMPLATE + text, "o4": "# {{ Q }}"}
        assert say({**GOOD, "workers": 4, "Q": "x"}, None, **texts)[1][1:] == []
        assert not taken({"t": TEMPLATE + text, "other": "{{ Q }}{% wrong", "o4": "{{ R }}"}, "t", None).certain
        assert "R" in taken({"t": TEMPLATE + text, "other": "{{ Q }}{% wrong", "o4": "{{ R }}"}, "t", None).names


def test_an_option_with_the_name_of_a_function_of_jinja() -> None:
    """As the namespace of a Kubernetes provider."""
    template = TEMPLATE + "# {{ namespace | default('x') }}"
    assert say({**GOOD, "namespace": "physics"}, None, template=template)[0]
    assert "'cycler'" in refused({**GOOD, "cycler": 1}, None, template=template)


def test_what_jinja_brings_is_no_option() -> None:
    template = TEMPLATE + "{% for i in range(2) %}{% set a = namespace(b=i) %}{% endfor %}"
    assert taken({"t": template}, "t", None).names == ("ACCOUNT", "image", "workers")


def test_none_is_not_given_where_a_value_is_wanted() -> None:
    assert say({**GOOD, "workers": None}, SCHEMA) == say(GOOD, SCHEMA)
    assert "'ACCOUNT' is missing" in refused({"ACCOUNT": None}, SCHEMA)
    assert say({**GOOD, "empty": None}, SCHEMA, template="engine: {{ empty }}\na: {{ ACCOUNT }}")[1][0].startswith(
        "engine: null"
    )
    assert say({"ACCOUNT": None}, None)[1][0].splitlines()[0].endswith("a: null, i: x}")  # as in the public package


def test_the_place_of_what_is_wrong_in_a_template() -> None:
    _, texts = say(GOOD, None, template="engine: 1\n\na: {{ ACCOUNT }}{{ MISSING }}")
    assert texts[1] == "t: line 3: 'MISSING' is undefined (no such option was given)"
    _, texts = say(GOOD, None, template=f"{TEMPLATE}{{% include 'other' %}}", other="\n{{ 1 / 0 }}")
    assert texts[1] == "other: line 2: ZeroDivisionError: division by zero"


def test_references_that_lead_elsewhere() -> None:
    schema = {
        "$id": "https://site.example/options",
        "properties": {
            "a": {"$ref": "#/$defs/a"},
            "b": {"$ref": "https://site.example/options#/$defs/a"},
            "c": {"$ref": "https://other.example/c.json"},
            "d": {"items": [{"$ref": "file:///etc/passwd"}]},
            "e": {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        },
    }
    assert sorted(remote_references(schema)) == ["file:///etc/passwd", "https://other.example/c.json"]
