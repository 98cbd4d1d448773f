"""Asks the program of an external document for the accounts of some identities.

    await ask(document, identities, connector_id, gateway_id) -> {"<id>": "alice"}

The program is called as `COMMAND... -c CONNECTOR -s GATEWAY -a` and reads
`{"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": [...]}`. It exits 0 and writes nothing, or
`{"DATA_TYPE": "identity_mapping_output#1.0.0", "result": [{"id": "...", "output": "alice"}, ...]}`, where DATA_TYPE
may be missing. An answer that is anything else is a failure of the program.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from identity import program
from identity.documents import ExternalDocument
from identity.identities import Identity, canonical_id
from identity.jsontext import DocumentError, Node
from identity.jsontext import parse as parse_json
from identity.program import MapperError

MAX_ANSWERS = 256
"""Answers of a program that are kept, when its document wants that."""
_OUTPUT = "identity_mapping_output#1.0.0"


async def ask(
    document: ExternalDocument, identities: Sequence[Identity], connector_id: str, gateway_id: str
) -> dict[str, str]:
    """The names the program gives, by id; unchecked as account names. Identities it does not know are absent.

    Raises:
        MapperError: the program failed, or its answer is not of the form above, names an identity it was not asked
            about, or names one twice.
    """
    if canonical_id(connector_id) is None or canonical_id(gateway_id) is None:
        raise MapperError(f"{document.rule} cannot be asked: the connector or gateway id is not a UUID")
    records = [dict(identity.fields) for identity in identities]
    question = {"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": records}
    argv = [*document.command, "-c", connector_id, "-s", gateway_id, "-a"]
    stdin = json.dumps(question, allow_nan=False).encode("ascii")
    key = "\0".join(argv).encode() + stdin
    good_until, names = document.answers.get(key, (0.0, {}))
    if time.monotonic() < good_until:
        return names
    output = await program.run(argv, stdin, document.run_as)
    try:
        names = decode(output, frozenset(identity.id for identity in identities))
    except DocumentError as e:
        raise MapperError(f"the answer of {document.rule} is not acceptable: {e.path} {e.problem}") from None
    _keep(document, key, names)
    return names


def _keep(document: ExternalDocument, key: bytes, names: dict[str, str]) -> None:
    if document.cache_seconds:
        if len(document.answers) >= MAX_ANSWERS:
            del document.answers[next(iter(document.answers))]
        document.answers[key] = (time.monotonic() + document.cache_seconds, names)


def decode(output: bytes, asked: frozenset[str]) -> dict[str, str]:
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
    found: dict[str, str] = {}
    for entry in result.value:
        _enter(entry, asked, found)
    return found


def _enter(entry: Node, asked: frozenset[str], found: dict[str, str]) -> None:
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
