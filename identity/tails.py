"""How values end that a pattern matches: by these texts `lookup` finds the mappings that are worth trying.

tails(tree)  for (.*)@(example\\.org|example\\.net)  -> {"@example.org", "@example.net"}
"""

from __future__ import annotations

from typing import TypeAlias

from identity.pattern_syntax import Alternation, Capture, Char, Concat, Maybe, Node

MAX_TAILS = 1000
"""Most tails of one pattern."""

_Tails: TypeAlias = "tuple[frozenset[str], bool]"
"""Tails of a part, and whether they are all that the part stands for, so that what comes before it tells more."""
_UNKNOWN = (frozenset({""}), False)


def tails(tree: Node) -> frozenset[str]:
    """Texts with one of which every matching value ends; the empty one if nothing is known."""
    return _tails(tree)[0]


def _tails(node: Node) -> _Tails:
    match node:
        case Char(char):
            return frozenset({char}), True
        case Capture(_, body):
            return _tails(body)
        case Maybe(body):
            return _either((_tails(body), (frozenset({""}), True)))
        case Alternation(branches):
            return _either(tuple(_tails(branch) for branch in branches))
        case Concat(parts):
            return _joined(parts)
        case _:
            return _UNKNOWN


def _either(ways: tuple[_Tails, ...]) -> _Tails:
    found = frozenset(text for texts, _ in ways for text in texts)
    return (found, all(whole for _, whole in ways)) if len(found) <= MAX_TAILS else _UNKNOWN


def _joined(parts: tuple[Node, ...]) -> _Tails:
    ends = frozenset({""})
    for part in reversed(parts):
        texts, whole = _tails(part)
        if len(texts) * len(ends) > MAX_TAILS:
            return ends, False
        ends = frozenset(text + end for text in texts for end in ends)
        if not whole:
            return ends, False
    return ends, True
