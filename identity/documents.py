"""What mapping documents are once they are read (`document_parser`): frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from identity.pattern import Matcher
from identity.template import Template


@dataclass(frozen=True)
class Rule:
    """Where a decision comes from. `document` and `mapping` count from 1; a program has no `mapping`.

    str() is for people: `mapping.json:7, document 1, mapping 2: '(.*)@example\\\\.org' -> '{0}'`.
    """

    source: str
    line: int
    document: int
    mapping: int | None
    text: str

    def __str__(self) -> str:
        mapping = "" if self.mapping is None else f", mapping {self.mapping}"
        return f"{self.source}:{self.line}, document {self.document}{mapping}: {self.text}"


@dataclass(frozen=True)
class Hint:
    """Something legal that is probably not meant: where it is, what it does, what to write instead.

    passed_over: a document that counts as if it were not there.
    """

    where: str
    text: str
    suggestion: str
    passed_over: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.text}; {self.suggestion}"


@dataclass(frozen=True)
class ExpressionMapping:
    """One entry of an expression document."""

    rule: Rule
    source: Template
    match: Matcher
    output: Template


@dataclass(frozen=True)
class ExpressionDocument:
    """Mappings, to be tried in order."""

    mappings: tuple[ExpressionMapping, ...]


@dataclass(frozen=True)
class ExternalDocument:
    """A program to ask; `command` begins with its absolute path.

    run_as: the account that it runs as; None for the runner's own. may_fail: whether later documents decide when
    it fails. cache_seconds: how long an answer is good for the same question.
    """

    rule: Rule
    command: tuple[str, ...]
    run_as: str | None = None
    may_fail: bool = False
    cache_seconds: float = 0.0


Document: TypeAlias = "ExpressionDocument | ExternalDocument"
