"""The matcher against Python's `re`, and what it refuses."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import nfa, pattern
from identity.pattern_hints import hints
from identity.pattern_syntax import PatternError

atoms = st.sampled_from(["a", "b", ".", r"\.", r"\*"])


def longer(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.lists(inner, min_size=1, max_size=3).map(lambda branches: f"({'|'.join(branches)})")
    repeated = st.builds(str.__add__, st.one_of(atoms, group), st.sampled_from("*?"))
    return st.one_of(group, repeated, st.lists(inner, max_size=4).map("".join))


def valid(match: str) -> bool:
    return not re.search(r"\*\?|\?\?|\*\*|\?\*|^[*?]|[(|][*?]", match) and match.count("(") <= 20


patterns = st.recursive(atoms, longer, max_leaves=12).filter(valid)


@settings(max_examples=400, deadline=None)
@given(patterns, st.text("ab.*\n", max_size=7))
def test_matches_and_captures_as_re_does(match: str, value: str) -> None:
    expected = re.fullmatch(f"(?:{match})", value)
    assert pattern.compile_match(match).fullmatch(value) == (None if expected is None else expected.groups())


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_row_26_literal_is_equality(match: str, value: str) -> None:
    literal = pattern.compile_match(match, literal=True)
    assert literal.fullmatch(match) == ()
    assert (literal.fullmatch(value) is not None) == (match == value)


@pytest.mark.parametrize(
    ("match", "value", "groups"),
    [
        ("(a*)*", "aa", ("",)),
        ("((a)|b)*", "ab", ("b", "a")),
        ("(x)?y", "y", (None,)),
        ("(a|ab)(c|bcd)?", "abcd", ("a", "bcd")),
        ("(.*)(.*)", "ab", ("ab", "")),
        ("", "", ()),
        (r"a\\(b)", "a\\b", ("b",)),
        (r"a\\1", "a\\1", ()),
        ("(.*)(b|ab)", "aab", ("aa", "b")),
        ("ab.*b", "ab", None),
        ("(.*)a(.*)(b|ab)", "aaab", ("aa", "", "b")),
    ],
)
def test_groups(match: str, value: str, groups: tuple[str | None, ...] | None) -> None:
    assert pattern.compile_match(match).fullmatch(value) == groups


@pytest.mark.parametrize("match", ["(a*)*b", "(.*)*@x", "((a*)*)*b", r"(.*\.)*@x", "(.*)(.*)(.*)@x"])
def test_row_01_redos(match: str) -> None:
    compiled = pattern.compile_match(match)
    begin = time.process_time()
    assert compiled.fullmatch("a." * 512) is None
    assert time.process_time() - begin < 5


def test_row_01_caps() -> None:
    with pytest.raises(nfa.TooMuchWork):
        pattern.compile_match("(.*)").fullmatch("a" * 1025)
    with pytest.raises(nfa.TooMuchWork):
        pattern.compile_match("a?" * 4000).fullmatch("a" * 1024)
    with pytest.raises(PatternError, match="8192"):
        pattern.compile_match("a" * 8193)
    with pytest.raises(PatternError, match="20 groups"):
        pattern.compile_match("()" * 21)


def test_row_02_suffix_attack() -> None:
    compiled = pattern.compile_match(r"alice@example\.org|bob@example\.net")
    assert compiled.fullmatch("alice@example.org.evil.com") is None
    assert compiled.fullmatch("alice@example.org") == ()
    assert pattern.compile_match("|a").fullmatch("b") is None
    with pytest.raises(PatternError, match="backslash"):
        pattern.compile_match("abc\\")


def test_row_04_trailing_newline() -> None:
    assert pattern.compile_match("(.*)@x").fullmatch("a@x\n") is None
    assert pattern.compile_match("a@x", literal=True).fullmatch("a@x\n") is None


@pytest.mark.parametrize("letter", ["\u212a", "\u017f", "\u0131", "\u0130"])
@pytest.mark.parametrize("literal", [True, False])
def test_row_05_unicode_case_folding(letter: str, literal: bool) -> None:
    for plain in "ksi":
        assert pattern.compile_match(plain, literal=literal, ignore_case=True).fullmatch(letter) is None


def test_ignore_case_keeps_the_case_of_what_it_captures() -> None:
    assert pattern.compile_match("(.*)@Example", ignore_case=True).fullmatch("Al@EXAMPLE") == ("Al",)


@pytest.mark.parametrize("match", ["(?:a)", "(?i)a", "(?=a)", r"(.)\1", r"\0", r"\101"])
def test_row_24_groups_of_python_and_references(match: str) -> None:
    with pytest.raises(PatternError):
        pattern.compile_match(match)


@pytest.mark.parametrize(
    "match",
    [r"\d", r"\@", r"a\\d", "a*?", "a??", r"\*?", "*a", "?", "(", ")", "a)", "(a", "a**", "a?*", "(*a)", "a|*b"],
)
def test_what_the_library_refuses_is_refused(match: str) -> None:
    with pytest.raises(PatternError):
        pattern.compile_match(match)


@pytest.mark.parametrize(
    ("match", "count"),
    [
        (r"(.*)@example\.org", 0),
        ("(.*)@example.org", 1),
        ("(.)@x", 0),
        ("^alice$", 2),
        (r"\.[a]{2}+", 5),
        ("(a)|b", 1),
        ("a|b", 0),
        ("(a|b)", 0),
    ],
)
def test_rows_03_25_27_hints(match: str, count: int) -> None:
    assert len(hints(match)) == count
    pattern.compile_match(match)


def test_row_25_plain_signs_match_themselves() -> None:
    assert pattern.compile_match("^[a]{2}+$").fullmatch("^[a]{2}+$") == ()
