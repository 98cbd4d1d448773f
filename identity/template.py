"""The texts with `{tokens}` of a mapping: its `source` and its `output`.

    parse("{username}").fill(record)             -> "alice@example.org"
    parse("{0}_{1}", groups=2).fill(record, groups) -> "alice_ext"

A token is `{`, a name without `}`, and `}`. A whole number is a group of the pattern, the first being 0; any other name
is a top-level field of the identity. A backslash (an odd number of them) before `{` keeps the token as text; the
backslashes stay in every case. Braces without a partner are text.

Values are put in once and never read again, so a value that looks like a token stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from identity.printable import shown

MAX_TEMPLATE = 8192
"""Longest source or output text, in characters."""


class TemplateError(ValueError):
    """The text cannot be a template: `problem` and `remedy`."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class Unfillable(ValueError):
    """This identity, or this match, lacks a value that the template needs; the text says which."""


@dataclass(frozen=True)
class Field:
    """The value of a field of the identity."""

    name: str


@dataclass(frozen=True)
class Group:
    """The text of a group of the pattern, the first being 0."""

    number: int


Part: TypeAlias = "str | Field | Group"


@dataclass(frozen=True)
class Template:
    """A parsed source or output."""

    parts: tuple[Part, ...]

    @property
    def fields(self) -> frozenset[str]:
        """The names of the identity fields that the template reads."""
        return frozenset(part.name for part in self.parts if isinstance(part, Field))

    def fill(self, record: Mapping[str, object], groups: Sequence[str | None] = ()) -> str:
        """The text with every token replaced.

        Raises:
            Unfillable: a field is missing, null or not a string; or a group took no part in the match.
        """
        return "".join(_value(part, record, groups) for part in self.parts)


def _value(part: Part, record: Mapping[str, object], groups: Sequence[str | None]) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Field):
        return _field(record, part.name)
    text = groups[part.number]
    if text is None:
        raise Unfillable(f"group {{{part.number}}} took no part in the match")
    return text


def _field(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        raise Unfillable(f"the identity has no {shown(name)}")
    raise Unfillable(f"field {shown(name)} of the identity is not a string")


def parse(text: str, groups: int = 0) -> Template:
    """Reads a template for a pattern with that many groups (a source is filled before there are any).

    Raises:
        TemplateError: the text is too long, or a token can never get a value.
    """
    if len(text) > MAX_TEMPLATE:
        raise TemplateError(f"is longer than {MAX_TEMPLATE} characters", "shorten it")
    return Template(tuple(_parts(text, groups)))


def _parts(text: str, groups: int) -> Iterator[Part]:
    done = at = 0
    while (at := text.find("{", at)) >= 0:
        end = text.find("}", at)
        if end < 0:
            break
        if _escaped(text, at):
            at += 1
            continue
        yield text[done:at]
        yield _token(text[at + 1 : end], groups)
        done = at = end + 1
    yield text[done:]


def _escaped(text: str, at: int) -> bool:
    before = text[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _token(name: str, groups: int) -> Field | Group:
    if not name:
        raise TemplateError("holds {}, which names nothing", "write {0} for the first group of the match")
    if not _is_number(name):
        if name[0].isdigit():
            raise TemplateError(
                f"holds {{{shown(name)[1:-1]}}}, which is neither a group nor a field", "write a field, as {username}"
            )
        return Field(name)
    if not (name.isascii() and name.isdigit()) or (name[0] == "0" and name != "0"):
        raise TemplateError(
            f"holds {{{shown(name)[1:-1]}}}, an unclear group number",
            "write {0}, {1}, ... without signs, spaces or zeros",
        )
    if groups == 0:
        raise TemplateError(f"holds {{{name[:20]}}}, but there are no groups", "name a field, or add ( ) to the match")
    if len(name) > 4 or int(name) >= groups:
        raise TemplateError(
            f"holds {{{name[:20]}}}, but the last group of the match is {{{groups - 1}}}", "count from 0"
        )
    return Group(int(name))


def _is_number(name: str) -> bool:
    """Whether the official library would read the name as a number: signs, spaces, `_` and all scripts' digits."""
    bare = name.strip().lstrip("+-").replace("_", "")
    return bool(bare) and all(c.isdecimal() for c in bare)
