"""The dangerous cases of identity mapping that concern the patterns and texts of mappings.

One test for each row of the table in the specification that we were given. A row says what the official library does,
and what a stricter engine should do; the latter is asserted here, from outside, as a request meets it. The details of
each part are tested beside it.
"""

from __future__ import annotations

import sys
import time

import pytest

from identity import pattern

from .asking import ask, hinted, name, refused
from .samples import ALICE, BOB, record


def test_row_01_cost_of_matching() -> None:
    begin = time.process_time()  # of this process alone: others may keep the machine busy
    for match in ("(a*)*b", "(.*)*@x", "((a*)*)*b", r"(.*\.)*@x", "(.*)(.*)(.*)@x", "(a|a)*b", "(a?)*" * 19 + "b"):
        assert name({"match": match, "output": "x"}, username="a." * 512) is None
        assert name({"match": match, "output": "x"}, username="a" * 1024) is None
    assert time.process_time() - begin < 20
    assert name({"source": "{name}{name}", "match": "(.*)", "output": "x"}, name="a" * 513) is None
    assert "8192" in refused({"match": "a" * 8193})
    assert "20 groups" in refused({"match": "(a)" * 21})
    for part in ("pattern", "pattern_syntax", "nfa", "tails", "lookup", "expression", "template"):
        assert not hasattr(sys.modules[f"identity.{part}"], "re"), "no Python `re` on administrators' patterns"


def test_row_01_long_source_decides_alike_in_any_order() -> None:
    literal: dict[str, object] = {"source": "{name}{name}", "match": "q", "literal": True, "output": "a"}
    large: dict[str, object] = {"source": "{name}{name}", "match": "(.*)", "output": "b"}
    found = [name([*first, {}], name="x" * 600) for first in ([large], [large, literal], [literal, large])]
    assert found == [None, None, None]


def test_row_02_suffix_attack() -> None:
    rules: dict[str, object] = {"match": r"alice@example\.org|bob@example\.net", "output": "x"}
    assert name(rules, username="bob@example.net") == name(rules, username="alice@example.org") == "x"
    for username in ("alice@example.org.evil", "bob@example.net.evil", "xbob@example.net"):
        assert name(rules, username=username) is None
    assert name({}, username="x@example.org.evil") is None
    assert "backslash" in refused({"match": "abc\\", "output": "x"})
    assert "backslash" in refused({"match": "abc" + "\\" * 3, "output": "x"})


def test_row_03_unescaped_dot() -> None:
    assert name({"match": "(.*)@example.org"}, username="x@exampleXorg") == "x"
    assert "any character" in hinted(match="(.*)@example.org")
    for match in (r"(.*)@example\.org", "(.)@x", ".*@x", ".?@x"):
        assert "any character" not in hinted(match=match, output="x")


def test_row_04_trailing_newline() -> None:
    assert pattern.compile_match(r"(.*)@example\.org").fullmatch("alice@example.org\n") is None
    for fields in ({"username": "alice@example.org\n"}, {"name": "a\tb"}, {"x": ["\x85"]}, {"x": {"\0": 1}}):
        decision = ask({}, record(**fields), record(BOB))
        assert decision.account is None
        assert "control character" in str(decision.refusal)


def test_row_05_case_folding() -> None:
    for literal in (True, False):
        rules: dict[str, object] = {"match": "KIss", "ignore_case": True, "literal": literal, "output": "x"}
        assert name(rules, username="kiSS") == "x"
        for username in ("\u212aiss", "k\u0131ss", "k\u0130ss", "ki\u017fs", "ki\xdf"):
            assert name(rules, username=username) is None
    assert name({"match": "\xe9", "ignore_case": True, "output": "x"}, username="\xc9") is None


def test_row_13_token_injection() -> None:
    assert name({"source": "{name}{id}", "match": f"{{id}}{ALICE}", "literal": True, "output": "x"}, name="{id}") == "x"
    assert name({"output": "a{name}b{organization}"}, name="{organization}", organization="c") is None
    assert name({"match": "(.*)@(.*)", "output": "{0}{1}"}, username="{1}@root") is None


@pytest.mark.parametrize("match", ["(?:a)", "(?i)a", "(?=a)", "(?<=a)b", "(?P<n>a)", r"(.)\1", r"\0", r"\101", "(?#a)"])
def test_row_24_what_python_adds(match: str) -> None:
    assert ".match" in refused({"match": match, "output": "x"})


def test_row_25_plain_signs() -> None:
    for match, value, other in (
        ("^al$", "^al$", "al"),
        ("a+", "a+", "aa"),
        ("[a]*", "[a]]", "a"),
        ("a{2}", "a{2}", "aa"),
    ):
        assert name({"match": match, "output": "x"}, username=value) == "x"
        assert name({"match": match, "output": "x"}, username=other) is None
        assert "plain text" in hinted(match=match, output="x")


@pytest.mark.parametrize("value", [r"a\.b", r"a\|b", r"a\*b", "a\\\\", r"a\5", r"a\[b", r"\(a\)", "a.b|c*"])
def test_row_26_literal(value: str) -> None:
    rules: dict[str, object] = {"match": value, "literal": True, "output": "x"}
    assert name(rules, username=value) == "x"
    for other in ("ab", "a.b", value + "x", value[:-1], r"a\Xb", "b", r"a\evil"):
        assert name(rules, username=other) is None


def test_row_27_groups_of_losing_branches() -> None:
    rules: dict[str, object] = {"match": r"(.*)@a\.org|(.*)@b\.org"}
    assert name(rules, username="x@a.org") == "x"
    assert name([rules, {"match": ".*", "output": "broad"}], username="x@b.org") is None
    assert "losing" in hinted(**rules)
