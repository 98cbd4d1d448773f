"""How the tests of the dangerous cases ask: one line from rules and records to a name, a refusal or a hint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from identity.decision import Decision
from identity.jsontext import DocumentError
from identity.mapper import Mapper
from identity.runner import MapperError
from mep.mapper.mapping import IdentityMapper
from mep.processes.sealed_file import SealedFile
from mep.profile.mapping_documents import MappingDocuments
from mep.request.account import Account
from mep.request.credentials import Credentials
from mep.request.mapped_identity import MappedIdentity
from mep.request.start_endpoint import StartEndpoint
from tests.mep.commands import MANAGER

from .samples import ALICE, decide, expression, external, record, run_program, text

Write = Callable[..., Path]
ALICES = Account("alice", 54321, 54321, "Alice", "/home/alice", "/bin/bash", (54321, 100))
CAROL = "cccccccc-0003-4000-8000-00000000000c"


def ask(rules: dict[str, object] | list[dict[str, object]], *records: object, **more: Any) -> Decision:
    """The decision for these records, by one document with these mappings."""
    mappings = rules if isinstance(rules, list) else [rules]
    return decide(Mapper.parse(text(expression(*mappings)), "m.json"), list(records), **more)


def name(rules: dict[str, object] | list[dict[str, object]], **fields: Any) -> str | None:
    """The account of one identity with these fields."""
    return ask(rules, record(**fields)).account


def refused(rules: dict[str, object]) -> str:
    with pytest.raises(DocumentError) as caught:
        Mapper.parse(text(expression(rules)), "m.json")
    return str(caught.value)


def hinted(**rules: object) -> str:
    return "\n".join(str(hint) for hint in Mapper.parse(text(expression(rules)), "m.json").hints)


def answers(*entries: tuple[str, str]) -> str:
    """What a mapping program writes that gives these names to these identities."""
    said = json.dumps({"result": [{"id": who, "output": output} for who, output in entries]})
    return f"cat >/dev/null; cat <<'END'\n{said}\nEND"


def run(path: Path, *records: object, **more: object) -> Decision:
    return decide(Mapper.parse(text({**external(path), **more}), "m.json"), list(records or (record(),)))


def fails(path: Path, match: str | None = None) -> str:
    with pytest.raises(MapperError, match=match) as caught:
        run(path)
    return str(caught.value)


def start(*records: dict[str, object]) -> StartEndpoint:
    """A request of the first of these identities."""
    return StartEndpoint(
        "r1", f"uep.{MANAGER}", MANAGER, "{}", "{}", Credentials(SealedFile.of(b"{}")), ALICE, "alice", list(records)
    )


def identify(command: StartEndpoint, mapping: str) -> MappedIdentity:
    """Whom the requester becomes by mapping documents with this text. Raises Refused."""
    documents = MappingDocuments(Path("m.json"), mapping, "a digest")
    return asyncio.run(IdentityMapper(MANAGER, run_program).identify(command, documents))
