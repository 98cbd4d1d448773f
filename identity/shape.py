"""Ordinary patterns without a machine: fixed texts, and fixed texts around `.*`, decided by comparing and searching.

    of(tree, groups=1)  for (.*)@(example\\.org|example\\.net)
    shapes[0].match("alice@example.net")  -> marks (0, 5, 6, 17): where each group begins and ends

Nearly every mapping that sites write has such a shape; `pattern` follows all ways at once for the others. The result is
the same: whole values only, repeats as long as possible from left to right, the leftmost alternative that leads to a
match.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from identity.pattern_syntax import Alternation, AnyChar, Capture, Char, Concat, Maybe, Node, Star

MAX_TEXTS = 1000
"""Most fixed texts that a part with alternatives may stand for."""

Marks: TypeAlias = "tuple[tuple[int, int], ...]"
_Text: TypeAlias = "tuple[str, Marks]"
"""A fixed text, and (slot, offset) for each begin (slot 2n) and end (2n + 1) of group n in it."""
_Texts: TypeAlias = "tuple[_Text, ...]"
"""What a part may stand for, the preferred first."""

_STAR = Star(AnyChar())


@dataclass(frozen=True)
class Shape:
    """Fixed texts with `.*` between them.

    begins: what may stand before the first `.*`, the preferred first. ways: for each choice among the alternatives
    after it, their texts, one after each `.*`, and the rank of each among its alternatives; one empty way when there
    is no `.*`. slots: two for each group of the pattern.
    """

    begins: _Texts
    ways: tuple[tuple[_Texts, tuple[int, ...]], ...]
    slots: int

    def match(self, value: str) -> tuple[int, ...] | None:
        """Begin and end of every group (-1 for one that took no part); None without a match.

        value: without newlines, which `.` does not match.
        """
        for text, marks in self.begins:
            if value.startswith(text):
                placed = self._place(value, len(text))
                if placed is not None:
                    return self._slots([(0, marks), *placed])
        return None

    def _place(self, value: str, begin: int) -> list[tuple[int, Marks]] | None:
        """Where the texts after the first `.*` stand, of the way that is preferred: repeats as long as possible and
        alternatives as they are ranked, what stands further left being more important."""
        best: tuple[tuple[int, ...], list[int], _Texts] | None = None
        for texts, ranks in self.ways:
            starts = _starts(value, begin, texts)
            if starts is None:
                continue
            if len(self.ways) == 1:
                return [(at, marks) for at, (_, marks) in zip(starts, texts, strict=True)]
            preference = _preference(begin, starts, texts, ranks)
            if best is None or preference > best[0]:
                best = (preference, starts, texts)
        return None if best is None else [(at, marks) for at, (_, marks) in zip(best[1], best[2], strict=True)]

    def _slots(self, placed: list[tuple[int, Marks]]) -> tuple[int, ...]:
        slots = [-1] * self.slots
        for at, marks in placed:
            for slot, offset in marks:
                slots[slot] = at + offset
        return tuple(slots)


def _starts(value: str, begin: int, texts: _Texts) -> list[int] | None:
    """Each text as far to the right as it goes, the last at the end: that makes the repeats on the left longest."""
    if not texts:
        return [] if len(value) == begin else None
    end = len(value) - len(texts[-1][0])
    if end < begin or not value.endswith(texts[-1][0]):
        return None
    starts = [end]
    for text, _ in reversed(texts[:-1]):
        end = value.rfind(text, begin, end)
        if end < 0:
            return None
        starts.append(end)
    starts.reverse()
    return starts


def _preference(begin: int, starts: list[int], texts: _Texts, ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Larger is better: the length of each `.*` and the rank of the text after it, from left to right."""
    found = []
    for start, (text, _), rank in zip(starts, texts, ranks, strict=True):
        found += [start - begin, -rank]
        begin = start + len(text)
    return tuple(found)


def of(tree: Node, groups: int) -> tuple[Shape, ...] | None:
    """The shapes of a pattern, one for each of its alternatives, to be tried in order; None when it has none."""
    branches = tree.branches if isinstance(tree, Alternation) else (tree,)
    shapes = [_shape(branch, groups) for branch in branches]
    return None if None in shapes else tuple(shape for shape in shapes if shape)


def tails(tree: Node) -> frozenset[str]:
    """Texts with one of which every matching value ends; the empty one if nothing is known."""
    match tree:
        case Alternation(branches):
            found = frozenset(tail for branch in branches for tail in tails(branch))
            return found if len(found) <= MAX_TEXTS else frozenset({""})
        case Capture(_, body):
            return tails(body)
        case Concat(parts):
            ends: _Texts = (("", ()),)
            for part in reversed(parts):
                texts = _texts(part)
                if texts is None:
                    return frozenset(one + text for one in tails(part) for text, _ in ends)
                if len(longer := _joined(texts, ends)) > MAX_TEXTS:
                    break
                ends = longer
            return frozenset(text for text, _ in ends)
        case _:
            return frozenset(text for text, _ in _texts(tree) or (("", ()),))


def _shape(tree: Node, groups: int) -> Shape | None:
    parts: list[_Texts] = [(("", ()),)]
    for item in _flat(tree):
        if item is None:
            return None
        if item == _STAR:
            parts.append((("", ()),))
        else:
            joined = _joined(parts[-1], item)  # type: ignore[arg-type]
            if len(joined) > MAX_TEXTS:
                return None
            parts[-1] = joined
    if math.prod(len(texts) for texts in parts[1:]) > MAX_TEXTS:
        return None
    ranked = [tuple(enumerate(texts)) for texts in parts[1:]]
    ways = tuple((tuple(text for _, text in way), tuple(rank for rank, _ in way)) for way in product(*ranked))
    return Shape(parts[0], ways, 2 * groups)


def _flat(node: Node) -> list[_Texts | Star | None]:
    """The parts of a pattern one after the other: fixed texts, `.*`, and None for what is neither."""
    texts = _texts(node)
    if texts is not None:
        return [texts]
    match node:
        case Concat(parts):
            return [item for part in parts for item in _flat(part)]
        case Capture(number, body):
            begin, end = (("", ((2 * number, 0),)),), (("", ((2 * number + 1, 0),)),)
            return [begin, *_flat(body), end]
        case Star(AnyChar()):
            return [_STAR]
        case Star(Capture(number, Star(AnyChar()))):  # the last pass of (.*)* is an empty one
            return [_STAR, (("", ((2 * number, 0), (2 * number + 1, 0))),)]
        case _:
            return [None]


def _texts(node: Node) -> _Texts | None:
    """What a part without repeats stands for; None when it has one, or stands for too much."""
    match node:
        case Char(char):
            return ((char, ()),)
        case Concat(parts):
            joined: _Texts = (("", ()),)
            for part in parts:
                texts = _texts(part)
                if texts is None or len(joined := _joined(joined, texts)) > MAX_TEXTS:
                    return None
            return joined
        case Alternation(branches):
            found = [_texts(branch) for branch in branches]
            every = tuple(text for texts in found if texts is not None for text in texts)
            return None if None in found or len(every) > MAX_TEXTS else every
        case Capture(number, body):
            texts = _texts(body)
            return (
                None
                if texts is None
                else tuple((text, (*marks, (2 * number, 0), (2 * number + 1, len(text)))) for text, marks in texts)
            )
        case Maybe(body):
            texts = _texts(body)
            return None if texts is None else (*texts, ("", ()))
        case _:
            return None


def _joined(first: _Texts, second: _Texts) -> _Texts:
    return tuple(
        (one + other, (*marks, *((slot, len(one) + offset) for slot, offset in more)))
        for one, marks in first
        for other, more in second
    )
