"""The matching language of mapping documents, in time linear in the length of the value.

    pattern = compile(r"(.*)@example\\.org")
    pattern.fullmatch("alice@example.org")  -> ("alice",)
    pattern.fullmatch("alice@example.net")  -> None

The language: `.` any character but newline; `*` and `?` repeat, greedily, the character, escape or group before them;
`|` alternatives, the leftmost that leads to a match; `( )` numbered groups; a backslash before one of `. ? * | ( ) \\`
makes it plain. Everything else, `^ $ + [ ] { }` included, is plain text. A match always covers the whole value.

Patterns meet values that strangers choose, so nothing here backtracks: all ways to match are followed at once (a Pike
machine), in the order in which a backtracking matcher would try them. The parser is in `pattern_syntax`.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TypeAlias

from identity.pattern_syntax import Any, Branches, Char, Group, Node, Optional, PatternError, Repeat, Sequence, parse

MAX_VALUE = 1024
"""Longest value, in characters, that a pattern is tried on."""
MAX_MATCH = 8192
"""Longest match text, in characters."""
MAX_WORK = 300_000
"""Most steps for one value, some tenths of a second: long values meet patterns with hundreds of alternatives."""


class TooMuchWork(Exception):
    """The value is too long for so large a pattern; whether it matches is not known."""


Groups: TypeAlias = "tuple[str | None, ...]"
_Marks: TypeAlias = "tuple[int, ...]"

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def fold(text: str) -> str:
    """A-Z to a-z and nothing else: the Kelvin sign is no `k`, and every character keeps its place."""
    return text.translate(_LOWER)


@dataclass(frozen=True)
class _Step:
    """One instruction. `char` consumes (None: anything but newline); the other kinds move on without consuming.

    kind: char, mark (note the position in slot `arg`), fork (try `to` in order), enter and again (begin and end of a
    repeated group, nested `depth` deep; `to` is body, then tail), match.
    """

    kind: str
    depth: int
    char: str | None = None
    arg: int = 0
    to: tuple[int, ...] = ()


class _Compiler:
    """Turns the tree into steps; steps are numbered, and those of a part come one after the other."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []

    def emit(self, node: Node, depth: int) -> None:
        match node:
            case Char(char):
                self.steps.append(_Step("char", depth, char=char))
            case Any():
                self.steps.append(_Step("char", depth, char=None))
            case Sequence(parts):
                for part in parts:
                    self.emit(part, depth)
            case Group(number, body):
                self.steps.append(_Step("mark", depth, arg=2 * number))
                self.emit(body, depth)
                self.steps.append(_Step("mark", depth, arg=2 * number + 1))
            case Branches(branches):
                self._branches(branches, depth)
            case Optional(body):
                at = self._hole()
                self.emit(body, depth)
                self.steps[at] = _Step("fork", depth, to=(at + 1, len(self.steps)))
            case Repeat(body):
                self._repeat(body, depth)

    def _hole(self) -> int:
        self.steps.append(_Step("fork", 0))
        return len(self.steps) - 1

    def _branches(self, branches: tuple[Node, ...], depth: int) -> None:
        at = self._hole()
        starts, ends = [], []
        for branch in branches:
            starts.append(len(self.steps))
            self.emit(branch, depth)
            ends.append(self._hole())
        self.steps[at] = _Step("fork", depth, to=tuple(starts))
        for end in ends:
            self.steps[end] = _Step("fork", depth, to=(len(self.steps),))

    def _repeat(self, body: Node, depth: int) -> None:
        at = self._hole()
        self.emit(body, depth + 1)
        tail = len(self.steps) + 1
        self.steps.append(_Step("again", depth, to=(at + 1, tail)))
        self.steps[at] = _Step("enter", depth, to=(at + 1, tail))


class Pattern:
    """A compiled match text. `groups` is the number of its groups."""

    def __init__(self, tree: Node, groups: int, ignore_case: bool) -> None:
        compiler = _Compiler()
        compiler.emit(tree, 0)
        self._steps = (*compiler.steps, _Step("match", 0))
        self._ignore_case = ignore_case
        self.groups = groups

    def fullmatch(self, value: str) -> Groups | None:
        """The text of every group (None where a group took no part), or None when the whole value does not match.

        Raises:
            TooMuchWork: more than MAX_VALUE characters or MAX_WORK steps.
        """
        if len(value) > MAX_VALUE:
            raise TooMuchWork(f"the source is longer than {MAX_VALUE} characters")
        budget = [MAX_WORK]
        subject = fold(value) if self._ignore_case else value
        threads = self._follow([(0, 0, (-1,) * (2 * self.groups))], 0, budget)
        for at, char in enumerate(subject):
            moved = [(pc + 1, self._steps[pc].depth, marks) for pc, marks in threads if self._accepts(pc, char)]
            if not moved:
                return None
            threads = self._follow(moved, at + 1, budget)
        for pc, marks in threads:
            if self._steps[pc].kind == "match":
                return self._texts(value, marks)
        return None

    def _accepts(self, pc: int, char: str) -> bool:
        step = self._steps[pc]
        if step.kind != "char":
            return False
        return char != "\n" if step.char is None else char == step.char

    def _texts(self, value: str, marks: _Marks) -> Groups:
        pairs = zip(marks[::2], marks[1::2], strict=True)
        return tuple(value[start:end] if end >= 0 else None for start, end in pairs)

    def _follow(self, stack: list[tuple[int, int, _Marks]], at: int, budget: list[int]) -> list[tuple[int, _Marks]]:
        """From (place, moved, marks) to where the threads stand before the next character; both best first.

        `moved` counts the enclosing repeats whose current pass has consumed something. A pass that consumed nothing
        is allowed but is the last one: that ends `(a*)*`, with the groups that Python reports. Outer passes begin
        before inner ones, so one number says it for all of them, and the number of places stays small.
        """
        found: list[tuple[int, _Marks]] = []
        seen: set[tuple[int, int]] = set()
        marked: set[int] = set()
        stack.reverse()
        while stack:
            pc, moved, marks = stack.pop()
            if (pc, moved) in seen:
                continue
            seen.add((pc, moved))
            step = self._steps[pc]
            if step.kind in ("char", "match"):
                if pc not in marked:
                    marked.add(pc)
                    found.append((pc, marks))
            elif step.kind == "mark":
                stack.append((pc + 1, moved, (*marks[: step.arg], at, *marks[step.arg + 1 :])))
            else:
                stack += [(to, min(moved, step.depth), marks) for to in reversed(_ways(step, moved))]
        budget[0] -= len(seen)
        if budget[0] < 0:
            raise TooMuchWork("the source is too long for so large a pattern")
        return found


def _ways(step: _Step, moved: int) -> tuple[int, ...]:
    if step.kind == "again" and moved <= step.depth:
        return step.to[1:]
    return step.to


class Literal:
    """A match text that is compared as it stands. It has no groups."""

    groups = 0

    def __init__(self, text: str, ignore_case: bool) -> None:
        self._ignore_case = ignore_case
        self._text = fold(text) if ignore_case else text

    def fullmatch(self, value: str) -> Groups | None:
        """An empty tuple when the value is the text, else None."""
        return () if (fold(value) if self._ignore_case else value) == self._text else None


def compile(match: str, *, literal: bool = False, ignore_case: bool = False) -> Pattern | Literal:
    """Prepares a match text.

    Raises:
        PatternError: the text is too long, or (unless literal) not of the language; says how to write it.
    """
    if len(match) > MAX_MATCH:
        raise PatternError(f"is longer than {MAX_MATCH} characters", "split it into several mappings")
    if literal:
        return Literal(match, ignore_case)
    tree, groups = parse(fold(match) if ignore_case else match)
    return Pattern(tree, groups, ignore_case)
