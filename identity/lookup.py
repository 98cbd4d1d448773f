"""Which mappings of a document are worth trying on an identity: of ten thousand usually one.

    lookup = Lookup(mappings)
    for mapping, value in lookup.candidates(record): ...      # in the order of the document

A source is filled once for all mappings that share it, and a mapping is a candidate only if the value ends as its
pattern ends. What is left out could not have matched; what is left in is still to be matched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from identity.nfa import TooMuchWork
from identity.pattern import MAX_VALUE, fold
from identity.template import Template, Unfillable

if TYPE_CHECKING:
    from identity import documents

Filled: TypeAlias = "str | Unfillable | TooMuchWork"
"""A filled source, or why there is none."""


class Lookup:
    """The mappings of a document, by their sources and by how their patterns end."""

    def __init__(self, mappings: tuple[documents.ExpressionMapping, ...]) -> None:
        self._mappings = mappings
        self._sources: dict[Template, _Source] = {}
        for number, mapping in enumerate(mappings):
            self._sources.setdefault(mapping.source, _Source(mapping.source)).add(number, mapping)

    def candidates(self, record: Mapping[str, object]) -> Iterator[tuple[documents.ExpressionMapping, Filled]]:
        """Each with its filled source, or with why there is none; that once for all mappings that share it."""
        found: list[tuple[int, Filled]] = []
        for source in self._sources.values():
            found += source.candidates(record)
        if len(self._sources) > 1:
            found.sort(key=lambda candidate: candidate[0])
        for number, value in found:
            yield self._mappings[number], value


class _Source:
    """The mappings with one and the same source."""

    def __init__(self, source: Template) -> None:
        self._source = source
        self._numbers: list[int] = []
        self._plain: dict[int, dict[str, list[int]]] = {}
        self._folded: dict[int, dict[str, list[int]]] = {}

    def add(self, number: int, mapping: documents.ExpressionMapping) -> None:
        """Numbers come in order."""
        self._numbers.append(number)
        by_length = self._folded if mapping.match.ignore_case else self._plain
        for tail in mapping.match.tails:
            by_length.setdefault(len(tail), {}).setdefault(tail, []).append(number)

    def candidates(self, record: Mapping[str, object]) -> list[tuple[int, Filled]]:
        """Their numbers, in order, with the value."""
        try:
            value = self._source.fill(record)
        except Unfillable as e:
            return [(self._numbers[0], e)]
        if len(value) > MAX_VALUE:
            return [(self._numbers[0], TooMuchWork(f"the source is longer than {MAX_VALUE} characters"))]
        found = set(_ending(self._plain, value))
        if self._folded:
            found.update(_ending(self._folded, fold(value)))
        return [(number, value) for number in sorted(found)]


def _ending(by_length: dict[int, dict[str, list[int]]], value: str) -> Iterator[int]:
    for length, tails in by_length.items():
        yield from tails.get(value[len(value) - length :] if length <= len(value) else "\n", ())
