"""How values end that a pattern matches: what is left out here is never tried."""

from __future__ import annotations

import re

import pytest

from identity import tails
from identity.pattern_syntax import PatternError, parse

from .generator import Generator


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (r"(.*)@example\.org", {"@example.org"}),
        (r"(.*)@(example\.org|example\.net)", {"@example.org", "@example.net"}),
        (r"(.*)@(a|b)\.(x|y)", {"@a.x", "@a.y", "@b.x", "@b.y"}),
        ("alice|bob", {"alice", "bob"}),
        ("(.*)-a|(.*)-b", {"-a", "-b"}),
        ("ab?", {"a", "ab"}),
        ("x(.*a)?", {"", "a"}),
        ("ab*", {""}),
        ("a.", {""}),
        ("(.*)", {""}),
        ("", {""}),
    ],
)
def test_tails(match: str, expected: set[str]) -> None:
    assert tails.tails(parse(match)[0]) == expected


def test_there_are_never_too_many() -> None:
    for match in ("(a|b)" * 20, "(a?)" * 20 + "z", "|".join(["a"] * 4000), "|".join(map(str, range(1500)))):
        assert len(tails.tails(parse(match)[0])) <= tails.MAX_TAILS


def test_every_value_that_matches_ends_so() -> None:
    told = 0
    for seed in range(3000):
        tree = Generator(seed, traps=False).pattern()
        try:
            found = tails.tails(parse(tree.text)[0])
        except PatternError:
            continue
        values = [tree.sample() for _ in range(5)]
        assert all(value.endswith(tuple(found)) for value in values if "\n" not in value), (tree.text, found)
        told += "" not in found
    assert told > 1000


def test_the_samples_are_values_that_match() -> None:
    tree = Generator(1, traps=False).pattern()
    assert re.fullmatch(f"(?:{tree.text})", tree.sample())
