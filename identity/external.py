"""Asks the program of an external document for the accounts of some identities.

    program = Program(document)
    await program.ask(identities, connector_id, gateway_id, run)  -> {"<id>": "alice"}

The program is called as `COMMAND... -c CONNECTOR -s GATEWAY -a` and reads
`{"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": [...]}`. It exits 0 and writes nothing, or
`{"DATA_TYPE": "identity_mapping_output#1.0.0", "result": [{"id": "...", "output": "alice"}, ...]}`, where DATA_TYPE
may be missing. An answer that is anything else is a failure of the program.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TypeAlias

from identity.documents import ExternalDocument
from identity.identities import Identity, canonical_id
from identity.jsontext import DocumentError, Node
from identity.jsontext import parse as parse_json
from identity.runner import MapperError, Runner

MAX_ANSWERS = 256
"""Answers of a program that are kept, when its document wants that."""
_OUTPUT = "identity_mapping_output#1.0.0"

Names: TypeAlias = "dict[str, str]"
"""Identity id -> name, unchecked as the name of an account."""


class Program:
    """The program of one document, with those of its answers that are still good, if the document wants that."""

    def __init__(self, document: ExternalDocument) -> None:
        self.document = document
        self._answers: dict[tuple[tuple[str, ...], bytes], tuple[float, Names]] = {}

    async def ask(self, identities: Sequence[Identity], connector_id: str, gateway_id: str, run: Runner) -> Names:
        """The names the program gives. Identities it does not know are absent.

        Raises:
            MapperError: the program failed, or its answer is not of the form above, names an identity it was not asked
                about, or names one twice.
        """
        rule = self.document.rule
        if canonical_id(connector_id) is None or canonical_id(gateway_id) is None:
            raise MapperError(f"{rule} cannot be asked: the connector or gateway id is not a UUID")
        argv = (*self.document.command, "-c", connector_id, "-s", gateway_id, "-a")
        stdin = _question(identities)
        good_until, names = self._answers.get((argv, stdin), (0.0, {}))
        if time.monotonic() < good_until:
            return names
        output = await run(argv, stdin, self.document.run_as)
        try:
            names = decode(output, frozenset(identity.id for identity in identities))
        except DocumentError as e:
            raise MapperError(f"the answer of {rule} is not acceptable: {e.path} {e.problem}") from None
        if self.document.cache_seconds:
            self._keep((argv, stdin), names)
        return names

    def _keep(self, question: tuple[tuple[str, ...], bytes], names: Names) -> None:
        if len(self._answers) >= MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[question] = (time.monotonic() + self.document.cache_seconds, names)


def _question(identities: Sequence[Identity]) -> bytes:
    records = [dict(identity.fields) for identity in identities]
    question = {"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": records}
    return json.dumps(question, allow_nan=False).encode("ascii")


def decode(output: bytes, asked: frozenset[str]) -> Names:
    """Reads an answer.

    Raises:
        DocumentError: it is not acceptable.
    """
    if not output:
        return {}
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError:
        raise _error("", "it is not UTF-8") from None
    top = _object(parse_json(text, "answer"), frozenset({"DATA_TYPE", "result"}))
    if "DATA_TYPE" in top and top["DATA_TYPE"].value != _OUTPUT:
        raise _error(".DATA_TYPE", f"it is not {_OUTPUT!r}")
    result = top.get("result")
    if result is None or not isinstance(result.value, list):
        raise _error(".result", "there is no list here")
    found: Names = {}
    for entry in result.value:
        _enter(entry, asked, found)
    return found


def _enter(entry: Node, asked: frozenset[str], found: Names) -> None:
    fields = _object(entry, frozenset({"id", "output"}))
    if fields.keys() != {"id", "output"}:
        raise _error(entry.path, "'id' or 'output' is missing")
    identity_id = canonical_id(fields["id"].value)
    name = fields["output"].value
    if identity_id not in asked or identity_id is None:
        raise _error(entry.path, "the id is not one that was asked for")
    if not isinstance(name, str):
        raise _error(entry.path, "the output is not a string")
    if identity_id in found:
        raise _error(entry.path, "the identity is answered twice")
    found[identity_id] = name


def _object(node: Node, known: frozenset[str]) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise _error(node.path, "there is no object here")
    if not node.value.keys() <= known:
        raise _error(node.path, "there is an unknown key")
    return node.value


def _error(path: str, problem: str) -> DocumentError:
    return DocumentError("answer", None, path, problem, "see the documentation of mapping programs")
