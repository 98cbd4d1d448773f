"""Tokens of source and output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import template

FIELDS = {
    "username": "alice@example.org",
    "id": "1",
    "n": 5,
    "null": None,
    "{name": "odd",
    "": "empty",
    "x{username": "x",
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("{username}", "alice@example.org"),
        ("{id}{id}", "11"),
        ("{username", "{username"),
        ("username}", "username}"),
        ("{id}}", "1}"),
        (r"\{id}", r"\{id}"),
        (r"\\{id}", r"\\1"),
        (r"\{a{id}", r"\{a1"),
        ("{{name}}", "odd}"),
        ("{x{username}", "x"),
        ("{0}-{1}", "g0-g1"),
        ("$1", "$1"),
    ],
)
def test_fill(text: str, result: str) -> None:
    assert template.parse(text, 2).fill(FIELDS, ("g0", "g1")) == result


@pytest.mark.parametrize("text", ["{nope}", "{null}", "{n}", "{ id }", "{id.x}", "{id!r}"])
def test_row_15_values_that_are_missing(text: str) -> None:
    with pytest.raises(template.Unfillable):
        template.parse(text).fill(FIELDS)


def test_group_that_took_no_part() -> None:
    with pytest.raises(template.Unfillable, match="took no part"):
        template.parse("{0}", 1).fill(FIELDS, (None,))


@given(st.text("{}\\01id", max_size=12), st.text("{}\\01id", max_size=12))
def test_row_13_token_injection(one: str, other: str) -> None:
    filled = template.parse("{a}/{0}/{b}/{a}", 1).fill({"a": one, "b": other, "id": "no"}, (other,))
    assert filled == f"{one}/{other}/{other}/{one}"


@pytest.mark.parametrize("token", ["{-1}", "{ 1 }", "{+1}", "{01}", "{}", "{0_1}", "{\u0661}", "{2}", "{99999}"])
def test_row_23_group_numbers(token: str) -> None:
    with pytest.raises(template.TemplateError):
        template.parse(token, 2)


def test_row_12_growth_ends() -> None:
    assert template.parse("{0}" * 12, 1).fill({}, ("{0}{0}",)) == "{0}{0}" * 12
    with pytest.raises(template.TemplateError, match="longer"):
        template.parse("a" * 8193)
