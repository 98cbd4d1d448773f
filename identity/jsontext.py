"""Strict JSON that remembers the line of every value, for messages that an administrator can follow.

    parse('{"a": 1}', "mapping.json") -> Node({"a": Node(1, line 1, ".a")}, line 1, "")

Refused besides what is no JSON: duplicate keys, NaN and Infinity, lone surrogates, more than 20 levels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias

MAX_DEPTH = 20
_SPACE = " \t\n\r"
_IDENTIFIER_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")

Scalar: TypeAlias = "str | int | float | bool | None"
Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


class DocumentError(ValueError):
    """A mapping document is not acceptable. Its text is one line for the administrator.

    It names the source, the line where known, the place as a JSON path, the problem and the remedy:
    `mapping.json:7: [0].mappings[2].match: the pattern ends in a single backslash; leave it out, ...`
    """

    def __init__(self, source: str, line: int | None, path: str, problem: str, remedy: str) -> None:
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {path + ': ' if path else ''}{problem}; {remedy}")
        self.source, self.line, self.path, self.problem, self.remedy = source, line, path, problem, remedy


@dataclass(frozen=True)
class Node:
    """A JSON value with its line and its path. Lists and objects hold nodes."""

    value: Value
    line: int
    path: str


def parse(text: str, source: str) -> Node:
    """Reads one JSON text.

    Raises:
        DocumentError: see the module's description.
    """
    reader = _Reader(text, source)
    node = reader.value("", 0)
    if reader.peek():
        raise reader.error(node.path, "there is text after the end of the document", "remove it")
    return node


def remedy(error: Exception) -> str:
    """What to do about a text that the standard library's decoder does not take; `error` is what it raised."""
    return r"a backslash is written twice in JSON, as in \\." if "escape" in str(error) else "correct the JSON"


class _Reader:
    """Recursive descent. Texts and numbers go to the standard decoder, so escapes mean what they always mean."""

    def __init__(self, text: str, source: str) -> None:
        self._text, self._source, self._at = text, source, 0
        self._line, self._counted = 1, 0
        self._decoder = json.JSONDecoder(parse_constant=_no_constant)

    def error(self, path: str, problem: str, remedy: str) -> DocumentError:
        return DocumentError(self._source, self._line_here(), path, problem, remedy)

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """The next character that is not white space, or nothing at the end."""
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def value(self, path: str, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.error("", "the text is nested too deeply", f"at most {MAX_DEPTH} levels are accepted")
        char = self.peek()
        line = self._line_here()
        if char == "{":
            return Node(self._object(path, depth), line, path)
        if char == "[":
            return Node(self._list(path, depth), line, path)
        return Node(self._scalar(path), line, path)

    def _object(self, path: str, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self._at += 1
        while not self._ends("}", path, first=not found):
            key = self._scalar(path) if self.peek() == '"' else None
            if not isinstance(key, str):
                raise self.error(path, "a key in double quotes is missing", "JSON has no comments or trailing commas")
            inner = f"{path}.{key}" if key and _IDENTIFIER_START.issuperset(key) else f"{path}[{json.dumps(key)}]"
            if key in found:
                raise self.error(inner, "the key is given twice", "keep one; which of them counts is not defined")
            self._expect(":", path)
            found[key] = self.value(inner, depth + 1)
        return found

    def _list(self, path: str, depth: int) -> list[Node]:
        found: list[Node] = []
        self._at += 1
        while not self._ends("]", path, first=not found):
            found.append(self.value(f"{path}[{len(found)}]", depth + 1))
        return found

    def _ends(self, closing: str, path: str, *, first: bool) -> bool:
        """Steps over the closing bracket (True) or over the comma before the next item."""
        if self.peek() == closing:
            self._at += 1
            return True
        if not first:
            self._expect(",", path)
            if self.peek() == closing:
                raise self.error(path, f"a comma stands before {closing!r}", "remove the comma")
        return False

    def _expect(self, char: str, path: str) -> None:
        if self.peek() != char:
            raise self.error(path, f"{char!r} is missing", "correct the JSON")
        self._at += 1

    def _scalar(self, path: str) -> Scalar:
        value: Scalar
        try:
            value, end = self._decoder.raw_decode(self._text, self._at)
        except ValueError as e:
            raise self.error(path, f"this is not JSON ({getattr(e, 'msg', e)})", remedy(e)) from None
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise self.error(path, "a text holds half a surrogate pair", "write the character itself")
        self._at = end
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            raise self.error(path, "a number is too large", "correct the number")
        return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")
