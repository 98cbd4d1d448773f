"""The matching language of mapping documents, in time linear in the length of the value.

    matcher = compile_match(r"(.*)@example\\.org")
    matcher.fullmatch("alice@example.org")  -> ("alice",)
    matcher.fullmatch("alice@example.net")  -> None

The language: `.` any character but newline; `*` and `?` repeat, greedily, the character, escape or group before them;
`|` alternatives, the leftmost that leads to a match; `( )` numbered groups; a backslash before one of `. ? * | ( ) \\`
makes it plain. Everything else, `^ $ + [ ] { }` included, is plain text. A match always covers the whole value.

Patterns meet values that strangers choose, so nothing here backtracks: all ways to match are followed at once (`nfa`).
The parser is in `pattern_syntax`.
"""

from __future__ import annotations

import string
from functools import cached_property
from typing import TypeAlias

from identity.nfa import Nfa, TooMuchWork
from identity.pattern_syntax import Node, PatternError, parse
from identity.tails import tails

MAX_VALUE = 1024
"""Longest value, in characters, that a pattern is tried on."""
MAX_MATCH = 8192
"""Longest match text, in characters."""

Groups: TypeAlias = "tuple[str | None, ...]"

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def fold(text: str) -> str:
    """A-Z to a-z and nothing else: the Kelvin sign is no `k`, and every character keeps its place."""
    return text.translate(_LOWER)


class PatternMatcher:
    """A compiled match text. `groups` is the number of its groups.

    tails: texts with one of which every matching value ends, folded when case is ignored.
    """

    def __init__(self, tree: Node, groups: int, ignore_case: bool) -> None:
        self._tree = tree
        self.ignore_case = ignore_case
        self.groups = groups
        self.tails = tails(tree)

    @cached_property
    def _nfa(self) -> Nfa:
        """Made when it is first needed."""
        return Nfa(self._tree, self.groups)

    def fullmatch(self, value: str) -> Groups | None:
        """The text of every group (None where a group took no part), or None when the whole value does not match.

        Raises:
            TooMuchWork: more than MAX_VALUE characters or MAX_WORK steps.
        """
        if len(value) > MAX_VALUE:
            raise TooMuchWork(f"the source is longer than {MAX_VALUE} characters")
        marks = self._nfa.run(fold(value) if self.ignore_case else value)
        if marks is None:
            return None
        pairs = zip(marks[::2], marks[1::2], strict=True)
        return tuple(value[start:end] if end >= 0 else None for start, end in pairs)


class LiteralMatcher:
    """A match text that is compared as it stands. It has no groups."""

    groups = 0

    def __init__(self, text: str, ignore_case: bool) -> None:
        self.ignore_case = ignore_case
        self._text = fold(text) if ignore_case else text
        self.tails = frozenset({self._text})

    def fullmatch(self, value: str) -> Groups | None:
        """An empty tuple when the value is the text, else None."""
        return () if (fold(value) if self.ignore_case else value) == self._text else None


Matcher: TypeAlias = "PatternMatcher | LiteralMatcher"


def compile_match(match: str, *, literal: bool = False, ignore_case: bool = False) -> Matcher:
    """Prepares a match text.

    Raises:
        PatternError: the text is too long, or (unless literal) not of the language; says how to write it.
    """
    if len(match) > MAX_MATCH:
        raise PatternError(f"is longer than {MAX_MATCH} characters", "split it into several mappings")
    if literal:
        return LiteralMatcher(match, ignore_case)
    tree, groups = parse(fold(match) if ignore_case else match)
    return PatternMatcher(tree, groups, ignore_case)
