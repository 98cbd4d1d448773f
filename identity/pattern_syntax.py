"""Reads the matching language of mapping documents into a tree, and finds what is legal but probably a mistake.

    parse(r"(a|b)*\\.c") -> (Concat(...), 1)
    hints("^alice$")    -> [("'^' is plain text ...", "leave it out ..."), ...]

The official library hands such text to Python's `re` after a loose screening. What slips through there (`(?...)`,
back-references, octal escapes, a lone final backslash) is refused here, as is all that the screening refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple, TypeAlias

MAX_GROUPS = 20
"""Most groups in one match text."""

_ESCAPABLE = frozenset(".?*|()\\")
_PLAIN_BUT_SUSPECT = "^$+[]{}"


class PatternError(ValueError):
    """The match text cannot be used: `problem` and `remedy`, to be put after the words "the pattern"."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Char:
    """Exactly this character."""

    char: str


@dataclass(frozen=True)
class AnyChar:
    """Any character but newline."""


@dataclass(frozen=True)
class Concat:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Alternation:
    """The first branch that leads to a match."""

    branches: tuple[Node, ...]


@dataclass(frozen=True)
class Capture:
    """A captured part; numbers begin at 0, in the order of opening parentheses."""

    number: int
    body: Node


@dataclass(frozen=True)
class Star:
    """The body any number of times, as often as possible."""

    body: Node


@dataclass(frozen=True)
class Maybe:
    """The body once, if possible, or not at all."""

    body: Node


Node: TypeAlias = "Char | AnyChar | Concat | Alternation | Capture | Star | Maybe"


class _Token(NamedTuple):
    """One sign of the text: `operator` is None for a plain character, which is `text`."""

    text: str
    operator: str | None
    at: int


@lru_cache(maxsize=8)  # it is asked for the pattern and for the hints
def parse(match: str) -> tuple[Node, int]:
    """The tree and the number of groups.

    Raises:
        PatternError: the text is not of the language, or has too many groups.
    """
    _screen(match)
    parser = _Parser(match)
    tree = parser.branches()
    if parser.current is not None:
        raise PatternError(f"has a ')' too many at character {parser.current.at + 1}", r"write \) for a plain one")
    return tree, parser.groups


def _screen(match: str) -> None:
    """The library's own tests on the raw text, which do not look at what escapes what."""
    for bad in ("*?", "??"):
        if bad in match:
            raise PatternError(f"holds {bad!r}", "all repeats are greedy; for an optional plain sign write (\\*|)")
    for at, char in enumerate(match[:-1]):
        after = match[at + 1]
        if char == "\\" and after not in _ESCAPABLE and not (after.isascii() and after.isdigit()):
            raise PatternError(
                f"holds a backslash before {after!r} (character {at + 1})",
                r"a backslash may only stand before . ? * | ( ) \ ; other characters are plain without one",
            )


def _tokens(match: str) -> Iterator[_Token]:
    at = 0
    while at < len(match):
        char = match[at]
        if char == "\\":
            yield _Token(_escaped(match, at), None, at)
            at += 2
        else:
            yield _Token(char, char if char in ".?*|()" else None, at)
            at += 1


def _escaped(match: str, at: int) -> str:
    char = match[at + 1 : at + 2]
    if not char:
        raise PatternError("ends in a single backslash", r"leave it out, or write \\ for a plain backslash")
    if char not in _ESCAPABLE:
        raise PatternError(
            f"holds \\{char}", r"there are no back-references or octal escapes; write \\ for a backslash"
        )
    return char


class _Parser:
    """Recursive descent over the tokens; depth is bounded by the number of groups."""

    def __init__(self, match: str) -> None:
        self._tokens = _tokens(match)
        self.current: _Token | None = next(self._tokens, None)
        self.groups = 0

    def _advance(self) -> None:
        self.current = next(self._tokens, None)

    def _at(self, operators: str) -> bool:
        return self.current is not None and self.current.operator is not None and self.current.operator in operators

    def branches(self) -> Node:
        found = [self._sequence()]
        while self._at("|"):
            self._advance()
            found.append(self._sequence())
        return found[0] if len(found) == 1 else Alternation(tuple(found))

    def _sequence(self) -> Node:
        parts = []
        while self.current is not None and not self._at("|)"):
            parts.append(self._repeated(self.current))
        return Concat(tuple(parts))

    def _repeated(self, token: _Token) -> Node:
        atom = self._atom(token)
        if not self._at("*?"):
            return atom
        node = Star(atom) if self._at("*") else Maybe(atom)
        self._advance()
        if self._at("*?"):
            raise PatternError(f"repeats a repeat (character {token.at + 1})", "write a single * or ?")
        return node

    def _atom(self, token: _Token) -> Node:
        if token.operator in ("*", "?"):
            raise PatternError(
                f"has {token.text!r} with nothing before it (character {token.at + 1})",
                f"write .* for any text, or \\{token.text} for a plain sign",
            )
        self._advance()
        if token.operator == "(":
            return self._group(token)
        return AnyChar() if token.operator == "." else Char(token.text)

    def _group(self, opening: _Token) -> Node:
        if self._at("?"):
            raise PatternError("holds '(?'", "only plain groups ( ) exist; for case use ignore_case")
        number = self.groups
        self.groups += 1
        if self.groups > MAX_GROUPS:
            raise PatternError(f"has more than {MAX_GROUPS} groups", "split it into several mappings")
        body = self.branches()
        if not self._at(")"):
            raise PatternError(
                f"never closes the '(' at character {opening.at + 1}", r"add ), or write \( for a plain one"
            )
        self._advance()
        return Capture(number, body)


def hints(match: str) -> list[tuple[str, str]]:
    """What a valid match text may not mean as written: pairs of (observation, suggestion)."""
    tokens = list(_tokens(match))
    better = _corrected(tokens)
    instead = "" if better == match else f'; perhaps "match": {json.dumps(better, ensure_ascii=False)} is meant'
    found = []
    if any(_is_bare_dot(tokens, at) for at in range(len(tokens))):
        found.append(("'.' matches any character, not only a dot", f"write \\\\. in JSON for a dot{instead}"))
    found += [
        (
            f"{char!r} is plain text here, not an operator",
            f"leave it out unless the value really holds {char!r}{instead}",
        )
        for char in _PLAIN_BUT_SUSPECT
        if any(t.text == char for t in tokens)
    ]
    if not _has_fixed_text(parse(match)[0]):
        found.append(("this accepts every value, of whatever domain", r"name the domain, as in (.*)@example\\.org"))
    if _top_level_branches(tokens) and any(t.operator == "(" for t in tokens):
        found.append(
            (
                "'|' between whole patterns leaves the groups of the losing sides unset",
                "write one mapping for each side",
            )
        )
    return found


def fixed_beginning(match: str) -> str:
    """The text that every matching value begins with, as far as that can be told."""
    tokens = list(_tokens(match))
    if _top_level_branches(tokens):
        return ""
    fixed = takewhile(lambda token: token.operator is None, tokens)
    text = "".join(token.text for token in fixed)
    repeated = len(text) < len(tokens) and tokens[len(text)].operator in ("*", "?")
    return text[:-1] if repeated else text


def _depth(tokens: list[_Token], at: int) -> int:
    """How many groups are open before that token."""
    return sum({"(": 1, ")": -1}.get(token.operator or "", 0) for token in tokens[:at])


def _is_bare_dot(tokens: list[_Token], at: int) -> bool:
    """A `.` that stands alone: anywhere outside of groups, and in them where it looks like a part of a domain."""
    if tokens[at].operator != ".":
        return False
    before = tokens[at - 1] if at else None
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    if after is not None and (after.operator in ("*", "?") or after.text == "+"):
        return False
    return _depth(tokens, at) == 0 or (_is_plain_word(before) and _is_plain_word(after))


def _is_plain_word(token: _Token | None) -> bool:
    return token is not None and token.operator is None and token.text.isalnum()


def _corrected(tokens: list[_Token]) -> str:
    """The match text as it was probably meant, as far as that can be told."""
    return "".join(_corrected_token(tokens, at) for at in range(len(tokens)))


def _corrected_token(tokens: list[_Token], at: int) -> str:
    token = tokens[at]
    if token.operator is not None:
        return r"\." if _is_bare_dot(tokens, at) else token.operator
    if (at == 0 and token.text == "^") or (at == len(tokens) - 1 and token.text == "$"):
        return ""
    if token.text == "+" and at and tokens[at - 1].operator == ".":
        return ".*"
    return f"\\{token.text}" if token.text in _ESCAPABLE else token.text


def _has_fixed_text(node: Node) -> bool:
    """Whether every way to match needs some plain character besides @."""
    match node:
        case Char(char):
            return char != "@"
        case Concat(parts):
            return any(_has_fixed_text(part) for part in parts)
        case Alternation(branches):
            return all(_has_fixed_text(branch) for branch in branches)
        case Capture(_, body):
            return _has_fixed_text(body)
        case _:
            return False


def _top_level_branches(tokens: list[_Token]) -> bool:
    return any(token.operator == "|" and _depth(tokens, at) == 0 for at, token in enumerate(tokens))
