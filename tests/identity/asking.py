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
from mep.accounts import look_up
from mep.daemon import helper_account
from mep.monitor.stages.identification import Identification
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.processes.sealed_file import SealedFile
from mep.profile.config import ManagerConfig
from mep.reader.files import parse_mapping
from mep.request.account import Account
from mep.request.credentials import Credentials
from mep.request.mapped_identity import MappedIdentity
from mep.request.start_endpoint import StartEndpoint
from tests.mep.commands import MANAGER

from .samples import ALICE, decide, expression, external, record, text

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
    credentials, identity_set = Credentials(SealedFile.of(b"{}")), json.dumps(records)
    return StartEndpoint("r1", f"uep.{MANAGER}", MANAGER, "{}", "{}", credentials, ALICE, "alice", identity_set)


def identify(command: StartEndpoint, mapping: str) -> MappedIdentity:
    """Whom the requester becomes by mapping documents with this text, as the manager asks. As root. Raises Refused."""
    documents = parse_mapping(Path("m.json"), mapping)

    async def find(name: str) -> Account | None:
        return look_up.account(name)

    async def asked() -> MappedIdentity:
        account = helper_account.find(ManagerConfig()).mapping
        mapper = Identification(account, MANAGER, MappingPrograms(find, account).ask)
        try:
            return await mapper.identify(command, documents)
        finally:
            await mapper.stop()

    return asyncio.run(asked())
