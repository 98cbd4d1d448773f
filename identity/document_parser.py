"""Reads mapping documents: from JSON text to typed, frozen values, or an error that says what to correct.

    parse('[{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [...]}]', "mapping.json")
        -> ((ExpressionDocument(...),), hints)

A file holds a list of documents, or one bare document. Two types exist, in version 1.0.0. All of a file is accepted or
none of it: a document that was skipped would leave others to decide. The one exception is the program `/bin/false`,
which can decide nothing. Unknown keys such as `comment` are ignored.
"""

from __future__ import annotations

import difflib

from identity import account_name, pattern, pattern_hints, pattern_syntax, template
from identity.documents import Document, ExpressionDocument, ExpressionMapping, ExternalDocument, Hint, Rule
from identity.identities import canonical_id
from identity.jsontext import DocumentError, Node
from identity.jsontext import parse as parse_json
from identity.printable import shown

MAX_TEXT = 1 << 20
"""Largest document file, in characters."""
MAX_CACHE = 3600
"""Most seconds that an answer of a program may be good for."""
EXPRESSION = "expression_identity_mapping#1.0.0"
EXTERNAL = "external_identity_mapping#1.0.0"
EXAMPLE = "/bin/false"
"""The program of the example document that the public package's `configure` wrote up to its version 4.5."""
_FIELDS = frozenset(
    {
        *("id", "sub", "username", "email", "name", "organization", "status"),
        *("identity_provider", "identity_provider_display_name", "identity_type", "last_authentication"),
    }
)
"""What Globus Auth says of an identity."""
_UNVERIFIED = frozenset({"email", "name", "organization"})


def parse(text: str, source: str) -> tuple[tuple[Document, ...], tuple[Hint, ...]]:
    """Reads all documents of a text.

    Raises:
        DocumentError: any of them is not acceptable.
    """
    if len(text) > MAX_TEXT:
        raise DocumentError(source, None, "", f"the text is longer than {MAX_TEXT} characters", "shorten it")
    reader = _Reader(source)
    documents = reader.documents(parse_json(text.removeprefix("\ufeff"), source))
    return documents, tuple(reader.hints)


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self.hints: list[Hint] = []

    def _error(self, node: Node, problem: str, remedy: str) -> DocumentError:
        return DocumentError(self._source, node.line, node.path, problem, remedy)

    def documents(self, top: Node) -> tuple[Document, ...]:
        nodes = [top] if isinstance(top.value, dict) else self._list(top, "documents")
        documents = [self._document(number, node) for number, node in enumerate(nodes, 1)]
        return tuple(document for document in documents if document is not None)

    def _list(self, node: Node, what: str) -> list[Node]:
        if not isinstance(node.value, list) or not node.value:
            raise self._error(node, f"there must be a list of {what} here, and not an empty one", "write [ ... ]")
        return node.value

    def _object(self, node: Node) -> dict[str, Node]:
        if not isinstance(node.value, dict):
            raise self._error(node, "there must be an object here", "write { ... }")
        return node.value

    def _key(self, node: Node, key: str) -> Node:
        found = self._object(node).get(key)
        if found is None:
            raise self._error(node, f"{key!r} is missing", "add it, spelled exactly so")
        return found

    def _string(self, node: Node) -> str:
        if not isinstance(node.value, str):
            raise self._error(node, "this must be a string", "write it in double quotes")
        return node.value

    def _flag(self, node: Node, key: str) -> bool:
        found = self._object(node).get(key)
        if found is None:
            return False
        if not isinstance(found.value, bool):
            raise self._error(found, "this must be true or false", "write true or false without quotes")
        return found.value

    def _document(self, number: int, node: Node) -> Document | None:
        data_type = self._key(node, "DATA_TYPE")
        kind = self._string(data_type)
        if kind == EXPRESSION:
            mappings = enumerate(self._list(self._key(node, "mappings"), "mappings"), 1)
            return ExpressionDocument(tuple(self._mapping(number, index, mapping) for index, mapping in mappings))
        if kind == EXTERNAL:
            return self._external(number, node)
        raise self._error(data_type, f"the type {shown(kind)} is not known", f"write {EXPRESSION!r} or {EXTERNAL!r}")

    def _external(self, number: int, node: Node) -> ExternalDocument | None:
        """None for the example that nobody has taken out."""
        command = self._key(node, "command")
        items = self._list(command, "strings")
        words = tuple(self._string(item) for item in items)
        if not words[0].startswith("/"):
            raise self._error(items[0], f"{shown(words[0])} is not an absolute path", "write the path from / on")
        for item, word in zip(items, words, strict=True):
            if "\0" in word:
                raise self._error(item, "an argument holds a NUL character", "remove it")
        if words[0] == EXAMPLE:
            text = f"the program {EXAMPLE} decides nothing, so this document is passed over"
            self.hints.append(Hint(f"{self._source}:{node.line}: {node.path}", text, "remove it", passed_over=True))
            return None
        return ExternalDocument(
            Rule(self._source, node.line, number, None, f"program {shown(words[0])}"),
            words,
            run_as=self._account(node),
            may_fail=self._flag(node, "may_fail"),
            cache_seconds=self._seconds(node, "cache_seconds"),
        )

    def _account(self, node: Node) -> str | None:
        found = self._object(node).get("run_as")
        if found is None:
            return None
        name = self._string(found)
        if wrong := account_name.problem(name, directory_names=True):
            raise self._error(found, wrong, "name the account, as the name service has it")
        return name

    def _seconds(self, node: Node, key: str) -> float:
        found = self._object(node).get(key)
        if found is None:
            return 0.0
        value = found.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_CACHE:
            raise self._error(found, f"this must be a number of seconds, at most {MAX_CACHE}", "write 0 for no cache")
        return float(value)

    def _mapping(self, number: int, index: int, node: Node) -> ExpressionMapping:
        match = self._key(node, "match")
        literal = self._flag(node, "literal")
        compiled = self._pattern(match, literal, self._flag(node, "ignore_case"))
        source = self._template(self._key(node, "source"), 0)
        output_node = self._key(node, "output")
        output = self._template(output_node, compiled.groups)
        if not literal:
            self._hint(match, pattern_hints.hints(self._string(match)))
        begin = self._string(match) if literal else pattern_hints.fixed_beginning(self._string(match))
        self._hint(node, _unverified(source, output, begin))
        self._hint(node, _unknown_fields(source.fields | output.fields))
        if output.parts == ("root",):
            self._hint(output_node, [("root never gets a user endpoint", "name an ordinary account")])
        text = f"{self._string(match)!r} -> {self._string(output_node)!r}"
        return ExpressionMapping(Rule(self._source, node.line, number, index, text), source, compiled, output)

    def _pattern(self, node: Node, literal: bool, ignore_case: bool) -> pattern.Matcher:
        if not self._string(node) and not literal:
            raise self._error(node, "the pattern is empty", "write what the value must be; (.*) is any text")
        try:
            return pattern.compile_match(self._string(node), literal=literal, ignore_case=ignore_case)
        except pattern_syntax.PatternError as e:
            raise self._error(node, f"the pattern {e.problem}", e.remedy) from None

    def _template(self, node: Node, groups: int) -> template.Template:
        try:
            return template.parse(self._string(node), groups)
        except template.TemplateError as e:
            raise self._error(node, f"the text {e.problem}", e.remedy) from None

    def _hint(self, node: Node, hints: list[tuple[str, str]]) -> None:
        where = f"{self._source}:{node.line}: {node.path}"
        self.hints += [Hint(where, text, suggestion) for text, suggestion in hints]


def _unknown_fields(fields: frozenset[str]) -> list[tuple[str, str]]:
    """Hints at fields that no identity has, so that the mapping never matches."""
    found = []
    for name in sorted(fields - _FIELDS):
        near = difflib.get_close_matches(name, _FIELDS, n=1)
        instead = f"did you mean {{{near[0]}}}?" if near else f"known: {', '.join(sorted(_FIELDS))}"
        found.append((f"no identity of Globus Auth has a field {name!r}, so this matches nobody", instead))
    return found


def _unverified(source: template.Template, output: template.Template, begin: str) -> list[tuple[str, str]]:
    """Hints at fields that people may set themselves, unless the identity provider is pinned.

    begin: the fixed text that the match begins with.
    """
    provider = source.parts[:2] == ("", template.Field("identity_provider"))
    if provider and canonical_id(begin[:36]) is not None and len(begin) > 36:
        return []
    return [
        (
            f"{name!r} may be chosen by its owner",
            "use {username} or {id}, or pin the provider: source {identity_provider}:{...}, match UUID:...",
        )
        for name in sorted(_UNVERIFIED & (source.fields | output.fields))
    ]
