"""Which mappings of a document are worth trying on an identity: of ten thousand usually one.

    lookup = Lookup(mappings)
    for mapping, value in lookup.candidates(record): ...      # in the order of the document

A source is filled once for all mappings that share it, and a mapping is a candidate only if the value ends as its
pattern ends. What is left out could not have matched; what is left in is still to be matched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from identity.documents import ExpressionMapping
from identity.nfa import TooMuchWork
from identity.pattern import MAX_VALUE, fold
from identity.template import Template, Unfillable

Filled: TypeAlias = "str | Unfillable | TooMuchWork"
"""A filled source, or why there is none."""


class Lookup:
    """The mappings of a document, by their sources and by how their patterns end."""

    def __init__(self, mappings: tuple[ExpressionMapping, ...]) -> None:
        self._mappings = mappings
        self._sources: dict[Template, _Source] = {}
        for number, mapping in enumerate(mappings):
            self._sources.setdefault(mapping.source, _Source(mapping.source, number)).add(number, mapping)

    def candidates(self, record: Mapping[str, object]) -> Iterator[tuple[ExpressionMapping, Filled]]:
        """Each with its filled source, or with why there is none; that once for all mappings that share it."""
        found: list[tuple[int, Filled]] = []
        for source in self._sources.values():
            found += source.candidates(record)
        if len(self._sources) > 1:
            found.sort(key=lambda candidate: candidate[0])
        for number, value in found:
            yield self._mappings[number], value


class _Source:
    """The mappings with one and the same source. first: the number of the first of them.

    Tails are compared as if all mappings ignored case: those that do not are tried in vain now and then.
    """

    def __init__(self, source: Template, first: int) -> None:
        self._source = source
        self._first = first
        self._by_tail: dict[str, list[int]] = {}
        self._lengths: set[int] = set()

    def add(self, number: int, mapping: ExpressionMapping) -> None:
        """Numbers come in order."""
        for tail in {fold(tail) for tail in mapping.match.tails}:
            self._by_tail.setdefault(tail, []).append(number)
            self._lengths.add(len(tail))

    def candidates(self, record: Mapping[str, object]) -> list[tuple[int, Filled]]:
        """Their numbers, in order, with the value."""
        try:
            value = self._source.fill(record)
        except Unfillable as e:
            return [(self._first, e)]
        if len(value) > MAX_VALUE:
            return [(self._first, TooMuchWork(f"the source is longer than {MAX_VALUE} characters"))]
        folded = fold(value)
        ends = [folded[len(folded) - length :] for length in self._lengths if length <= len(folded)]
        return [(number, value) for number in sorted({number for end in ends for number in self._by_tail.get(end, ())})]
