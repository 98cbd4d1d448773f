"""Follows all ways to match a pattern at once, in the order in which a backtracking matcher would try them.

    Nfa(tree, groups=1).run("aab")  -> (0, 2): where each group begins and ends; None without a match

A nondeterministic finite automaton, after Pike: its threads stand before characters of the pattern, the preferred
first. Where they go from there, and which groups begin or end on the way, depends on the character only and not on
what came before, so it is worked out once for each set of places and character, and looked up afterwards. Time is
linear in the value, whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from identity.pattern_syntax import Alternation, AnyChar, Capture, Char, Concat, Maybe, Node, Star

MAX_WORK = 30_000
"""Most steps for one value, some hundredths of a second; a user name of 60 characters takes hundreds."""
MAX_KNOWN = 20_000
"""Threads of all transitions that are remembered for a pattern; most need a dozen."""


class TooMuchWork(Exception):
    """The value is too long for so large a pattern; whether it matches is not known."""


_Places: TypeAlias = "tuple[int, ...]"
_Moves: TypeAlias = "tuple[tuple[int, tuple[int, ...]], ...]"
"""For each thread: the thread that it comes from, and the slots that note the position."""
_OTHER = "other"


@dataclass(frozen=True, slots=True)
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
            case AnyChar():
                self.steps.append(_Step("char", depth, char=None))
            case Concat(parts):
                for part in parts:
                    self.emit(part, depth)
            case Capture(number, body):
                self.steps.append(_Step("mark", depth, arg=2 * number))
                self.emit(body, depth)
                self.steps.append(_Step("mark", depth, arg=2 * number + 1))
            case Alternation(branches):
                self._branches(branches, depth)
            case Maybe(body):
                at = self._hole()
                self.emit(body, depth)
                self.steps[at] = _Step("fork", depth, to=(at + 1, len(self.steps)))
            case Star(body):
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


class Nfa:
    """A compiled pattern with that many groups."""

    def __init__(self, tree: Node, groups: int) -> None:
        compiler = _Compiler()
        compiler.emit(tree, 0)
        self._steps = (*compiler.steps, _Step("match", 0))
        self._alphabet = {step.char for step in self._steps if step.char is not None} | {"\n"}
        self._slots = 2 * groups
        self._known: dict[tuple[_Places, str], tuple[_Places, _Moves]] = {}
        self._size = 0
        self._work = 0

    def run(self, subject: str) -> tuple[int, ...] | None:
        """Begin and end of every group, -1 for one that took no part; None when the whole subject does not match.

        Raises:
            TooMuchWork: more than MAX_WORK steps.
        """
        self._work = 0
        places, moves = self._begin
        marks = [_noted((-1,) * self._slots, slots, 0) for _, slots in moves]
        for at, char in enumerate(subject, 1):
            sign = char if char in self._alphabet else _OTHER
            places, moves = self._known.get((places, sign)) or self._move(places, sign)
            if not places:
                return None
            self._spend(len(places))
            marks = [_noted(marks[thread], slots, at) if slots else marks[thread] for thread, slots in moves]
        for place, noted in zip(places, marks, strict=True):
            if self._steps[place].kind == "match":
                return noted
        return None

    @cached_property
    def _begin(self) -> tuple[_Places, _Moves]:
        """Where threads stand before the first character."""
        return self._follow([(0, 0, 0, ())])

    def _spend(self, steps: int) -> None:
        self._work += steps
        if self._work > MAX_WORK:
            raise TooMuchWork("the source is too long for so large a pattern")

    def _move(self, places: _Places, sign: str) -> tuple[_Places, _Moves]:
        """Where threads at `places` go with a character, and how."""
        accepted = [(thread, place) for thread, place in enumerate(places) if self._accepts(place, sign)]
        found = self._follow([(place + 1, self._steps[place].depth, thread, ()) for thread, place in accepted])
        self._size += len(places) + len(found[0]) + 1
        if self._size > MAX_KNOWN:
            self._known.clear()
            self._size = 0
        self._known[places, sign] = found
        return found

    def _accepts(self, place: int, sign: str) -> bool:
        step = self._steps[place]
        if step.kind != "char":
            return False
        return sign != "\n" if step.char is None else sign == step.char

    def _follow(self, stack: list[tuple[int, int, int, tuple[int, ...]]]) -> tuple[_Places, _Moves]:
        """From (place, moved, thread, slots noted) to where the threads stand before the next character; best first.

        `moved` counts the enclosing repeats whose current pass has consumed something. A pass that consumed nothing
        is allowed but is the last one: that ends `(a*)*`, with the groups that Python reports. Outer passes begin
        before inner ones, so one number says it for all of them, and the number of places stays small.
        """
        places: list[int] = []
        moves: list[tuple[int, tuple[int, ...]]] = []
        seen: set[tuple[int, int]] = set()
        found: set[int] = set()
        stack.reverse()
        while stack:
            place, moved, thread, slots = stack.pop()
            if (place, moved) in seen:
                continue
            seen.add((place, moved))
            self._spend(1)
            step = self._steps[place]
            if step.kind in ("char", "match"):
                if place not in found:
                    found.add(place)
                    places.append(place)
                    moves.append((thread, slots))
            elif step.kind == "mark":
                stack.append((place + 1, moved, thread, (*slots, step.arg)))
            else:
                stack += [(to, min(moved, step.depth), thread, slots) for to in reversed(_ways(step, moved))]
        return tuple(places), tuple(moves)


def _ways(step: _Step, moved: int) -> tuple[int, ...]:
    if step.kind == "again" and moved <= step.depth:
        return step.to[1:]
    return step.to


def _noted(marks: tuple[int, ...], slots: tuple[int, ...], at: int) -> tuple[int, ...]:
    if not slots:
        return marks
    changed = list(marks)
    for slot in slots:
        changed[slot] = at
    return tuple(changed)
