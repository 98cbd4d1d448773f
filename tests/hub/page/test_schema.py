"""Schemas as forms, and what is typed there as options: simple ones asked for one by one, hostile ones harmless."""

from __future__ import annotations

import json

import pytest

from hub.page.schema import MOST_FIELDS, REST, Field, Group, bounded_json, form_of, read

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["account"],
    "properties": {
        "account": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "(a+)+$"},
        "partition": {"enum": ["debug", "gpu", 3, None], "default": "gpu"},
        "workers": {"type": "integer", "minimum": 1, "maximum": 64, "default": 4, "description": "how many"},
        "hours": {"type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 48},
        "exclusive": {"type": "boolean"},
        "init": {"type": "string"},
        "nodes": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        "image": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "deep": {"type": "object"}},
            "additionalProperties": False,
        },
        "either": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    },
    "additionalProperties": False,
}


def typed(**values: str) -> dict[str, str]:
    """What is typed, by keys of SCHEMA, as the form's fields are named."""
    names = {f"{f.group}_{f.key}" if f.group else f.key: f.name for f in form_of(SCHEMA).fields}
    return {names.get(key, key): value for key, value in values.items()}


def test_each_value_has_a_field_of_its_kind():
    form = form_of(SCHEMA)
    kinds = {f.key: f.kind for f in form.fields}
    assert kinds == {
        "account": "line",
        "partition": "choice",
        "workers": "integer",
        "hours": "number",
        "exclusive": "boolean",
        "init": "text",
        "nodes": "list",
        "name": "text",
        "deep": "json",
        "either": "json",
    }
    assert [part.key for part in form.parts if isinstance(part, Group)] == ["image"]
    workers = next(f for f in form.fields if f.key == "workers")
    assert (workers.default, workers.description, workers.limits.least, workers.limits.most) == ("4", "how many", 1, 64)
    assert [f.key for f in form.fields if f.required] == ["account", "name"]
    assert not form.rest and not form.more_rules


def test_what_is_typed_becomes_options():
    answer = read(
        form_of(SCHEMA),
        typed(
            account="phys",
            partition="2",
            workers=" 8 ",
            hours="1.5",
            exclusive="false",
            init="module load gcc\r\nexport A=1",
            nodes="1\r\n\r\n 2",
            image_name="x.sif",
            image_deep='{"a": [1]}',
            either='"word"',
        ),
    )
    assert answer.errors == {}
    assert answer.options == {
        "account": "phys",
        "partition": 3,
        "workers": 8,
        "hours": 1.5,
        "exclusive": False,
        "init": "module load gcc\nexport A=1",
        "nodes": [1, 2],
        "image": {"name": "x.sif", "deep": {"a": [1]}},
        "either": "word",
    }


def test_what_is_left_out_is_not_among_the_options():
    answer = read(form_of(SCHEMA), typed(account="phys", workers="  ", unknown="x"))
    assert (answer.options, answer.errors) == ({"account": "phys"}, {})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("account", "", "needs a value"),
        ("account", "x", "at least 2 characters"),
        ("account", "phys12", "at most 5 characters"),
        ("partition", "4", "one of the list"),
        ("partition", "-1", "one of the list"),
        ("partition", "gpu", "one of the list"),
        ("workers", "1.5", "whole number"),
        ("workers", "0", "1 or more"),
        ("workers", "65", "64 or less"),
        ("workers", "9" * 400, "whole number"),
        ("hours", "0", "more than 0"),
        ("hours", "48", "less than 48"),
        ("hours", "nan", "a number"),
        ("hours", "1e999", "a number"),
        ("hours", "\u0661", "a number"),
        ("exclusive", "yes", "true or false"),
        ("nodes", "1\n2\n3", "at most 2 entries"),
        ("nodes", "one", "whole number"),
        ("either", "{", "Not JSON"),
        ("either", "NaN", "Not JSON"),
        ("either", "1" * 5000, "Not JSON"),
        ("either", "[" * 100_000, "Nested too deep"),
        ("either", "[" * 50 + "]" * 50, "Nested too deep"),
        ("image_deep", "{", "Not JSON"),
    ],
)
def test_what_does_not_fit_is_told_at_its_field(key, value, expected):
    given = {"account": "phys", "image_name": "x", key: value}
    answer = read(form_of(SCHEMA), typed(**given))
    assert list(answer.errors) == list(typed(**{key: ""}))
    (error,) = answer.errors.values()
    assert expected in error


def test_an_object_that_is_not_needed_needs_nothing_when_it_is_empty():
    assert read(form_of(SCHEMA), typed(account="phys")).errors == {}
    needed = {**SCHEMA, "required": ["image"]}
    assert list(read(form_of(needed), {}).errors) == ["f7.0"]


def test_without_a_schema_options_are_json():
    for schema in (None, [], {}, {"properties": 1}, True):
        form = form_of(schema)
        assert form.rest and not form.parts
        assert read(form, {REST: '{"A": 1}'}).options == {"A": 1}
        assert list(read(form, {REST: "[]"}).errors) == [REST]
        assert read(form, {REST: " "}).options == {}


def test_further_options_do_not_replace_those_with_a_field():
    form = form_of({"properties": {"a": {"type": "string"}}})
    assert read(form, {"f0": "x", REST: '{"b": 1}'}).options == {"a": "x", "b": 1}
    assert "of its own" in read(form, {REST: '{"a": 1}'}).errors[REST]


def test_rules_that_are_not_looked_at_are_told():
    assert form_of({"properties": {}, "allOf": [{"$ref": "https://example.org/x"}]}).more_rules
    assert form_of({"properties": {"a": {"$ref": "#"}}}).fields[0].kind == "json"
    assert form_of({"properties": {"a": True}}).fields[0].kind == "json"


HOSTILE = [
    {"type": "string", "minLength": -1, "maxLength": "x", "description": 1, "title": [], "default": {"a": 1}},
    {"type": "integer", "minimum": 10**400, "maximum": True, "default": 10**300},
    {"type": "number", "minimum": None, "multipleOf": 0},
    {"type": ["string", "integer"]},
    {"type": [["a"], {}]},
    {"type": {}},
    {"enum": []},
    {"enum": "abc"},
    {"enum": [[1], {}]},
    {"enum": list(range(10_000))},
    {"const": {"a": 1}},
    {"type": "array", "items": [1]},
    {"type": "array", "items": {"type": "array"}},
    {"type": "array"},
    {"type": "object", "properties": 1},
    {"type": "object", "properties": {"a": 1}, "required": [1, [], "a"], "additionalProperties": False},
    {"type": "object", "properties": {f"k{n}": {} for n in range(10_000)}, "additionalProperties": False},
    {"$ref": "#"},
    1,
    None,
    [],
    "x",
]


@pytest.mark.parametrize("value", HOSTILE, ids=str)
def test_an_odd_schema_still_has_a_form(value):
    form = form_of({"properties": {"a": value, "\ud800": value}, "required": "a", "additionalProperties": value})
    answers = {f.name: text for text in ("1", "x", "{}", "1e5") for f in form.fields}
    read(form, answers)
    assert len(form.fields) <= MOST_FIELDS


def test_of_many_values_the_rest_is_asked_for_as_json():
    schema = {"properties": {f"k{n}": {"type": "string"} for n in range(1000)}, "additionalProperties": False}
    form = form_of(schema)
    assert len(form.fields) == MOST_FIELDS and form.rest
    assert read(form, {REST: '{"k999": "x"}'}).options == {"k999": "x"}


def test_no_pattern_is_matched_and_no_reference_followed():
    """What would take years, or ask somebody else, is not looked at: the endpoint does that for itself."""
    schema = {
        "properties": {
            "a": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"},
            "b": {"$ref": "http://127.0.0.1:1/schema"},
        },
        "patternProperties": {"(x+x+)+y": {}},
    }
    assert read(form_of(schema), {"f0": "a" * 50_000, "f1": '"x"'}).errors == {}


def test_json_of_a_stranger_is_written_no_further_than_is_shown():
    assert json.loads(bounded_json(SCHEMA, 10_000)) == SCHEMA
    assert len(bounded_json(["x" * 10_000_000] * 3, 100)) == 104
    assert len(bounded_json(list(range(10**6)), 100)) == 104
    assert bounded_json("\ud800", 100) == '"\\ud800"'


def test_fields_are_named_by_their_place_not_by_their_key():
    form = form_of({"properties": {'"><script>': {"type": "string"}, "csrf": {"type": "string"}}})
    assert [part.name for part in form.parts if isinstance(part, Field)] == ["f0", "f1"]
