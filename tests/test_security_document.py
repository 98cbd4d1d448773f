"""docs/security.md keeps its word: each invariant names tests, and each test that is named is one that pytest runs."""

from __future__ import annotations

import re

import pytest

from tests.references import PROJECT, REFERENCE, not_collected

TEXT = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [
    (int(number), what, held_by)
    for number, what, held_by in re.findall(r"^\| (\d+) \| (.*?) \| (.*) \|$", TEXT, re.MULTILINE)
]


def test_invariants_are_numbered_in_order() -> None:
    assert [number for number, _, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 25


@pytest.mark.parametrize(("number", "what", "held_by"), ROWS, ids=[str(number) for number, _, _ in ROWS])
def test_each_invariant_names_tests_and_nothing_else(number: int, what: str, held_by: str) -> None:
    assert what
    assert REFERENCE.findall(held_by), f"no test is named for invariant {number}"
    assert not REFERENCE.sub("", held_by).replace(",", "").strip(), "what is not a reference would not be checked"


def test_each_test_that_is_named_is_collected() -> None:
    assert not_collected(REFERENCE.findall(TEXT)) == []


def test_each_module_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:mep|identity|uep|wire)/[\w/.]+)`", TEXT))
    assert named
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []
