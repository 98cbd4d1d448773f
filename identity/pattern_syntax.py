"""Reads the matching language of mapping documents into a tree.

    parse(r"(a|b)*\\.c") -> (Concat(...), 1)

The official library hands such text to Python's `re` after a loose screening. What slips through there (`(?...)`,
back-references, octal escapes, a lone final backslash) is refused here, as is all that the screening refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

MAX_GROUPS = 20
"""Most groups in one match text."""

ESCAPABLE = frozenset(".?*|()\\")
"""What a backslash makes plain."""


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


class Token(NamedTuple):
    """One sign of the text: `operator` is None for a plain character, which is `text`."""

    text: str
    operator: str | None
    at: int


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
        if char == "\\" and after not in ESCAPABLE and not (after.isascii() and after.isdigit()):
            raise PatternError(
                f"holds a backslash before {after!r} (character {at + 1})",
                r"a backslash may only stand before . ? * | ( ) \ ; other characters are plain without one",
            )


def tokens(match: str) -> Iterator[Token]:
    """The signs of a match text, each escape being one.

    Raises:
        PatternError: an escape is not of the language.
    """
    at = 0
    while at < len(match):
        char = match[at]
        if char == "\\":
            yield Token(_escaped(match, at), None, at)
            at += 2
        else:
            yield Token(char, char if char in ".?*|()" else None, at)
            at += 1


def _escaped(match: str, at: int) -> str:
    char = match[at + 1 : at + 2]
    if not char:
        raise PatternError("ends in a single backslash", r"leave it out, or write \\ for a plain backslash")
    if char not in ESCAPABLE:
        raise PatternError(
            f"holds \\{char}", r"there are no back-references or octal escapes; write \\ for a backslash"
        )
    return char


class _Parser:
    """Recursive descent over the tokens; depth is bounded by the number of groups."""

    def __init__(self, match: str) -> None:
        self._tokens = tokens(match)
        self.current: Token | None = next(self._tokens, None)
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

    def _repeated(self, token: Token) -> Node:
        atom = self._atom(token)
        if not self._at("*?"):
            return atom
        node = Star(atom) if self._at("*") else Maybe(atom)
        self._advance()
        if self._at("*?"):
            raise PatternError(f"repeats a repeat (character {token.at + 1})", "write a single * or ?")
        return node

    def _atom(self, token: Token) -> Node:
        if token.operator in ("*", "?"):
            raise PatternError(
                f"has {token.text!r} with nothing before it (character {token.at + 1})",
                f"write .* for any text, or \\{token.text} for a plain sign",
            )
        self._advance()
        if token.operator == "(":
            return self._group(token)
        return AnyChar() if token.operator == "." else Char(token.text)

    def _group(self, opening: Token) -> Node:
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
