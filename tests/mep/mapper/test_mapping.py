from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from mep.mapper.mapping import IdentityMapper
from mep.profile.mapping_documents import MappingDocuments
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import ProgramFailed
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint
from tests.mep.commands import ALICE, MANAGER, MAPPING


async def no_program(argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
    """Stands for the monitor, whose mapping programs all fail."""
    raise ProgramFailed(f"{argv[0]} ended with status 3")


def mapped(command: StartEndpoint, documents: object, source: str = "mapping.json") -> MappedIdentity:
    found = MappingDocuments(Path(source), json.dumps(documents, indent=1), "a digest")
    return asyncio.run(IdentityMapper(MANAGER, no_program).identify(command, found))


def test_the_name_comes_with_the_rule_that_decided(command: StartEndpoint) -> None:
    found = mapped(command, MAPPING)
    assert (found.username, found.identity) == ("alice", ALICE)
    assert found.rule.startswith("mapping.json:")
    assert found.candidates == [[{ALICE: ["alice"]}]]


def test_nobody_is_refused_and_told_which_identity_it_was(command: StartEndpoint) -> None:
    nobody = [{**MAPPING[0], "mappings": [{"source": "{username}", "match": "bob", "output": "bob"}]}]
    with pytest.raises(Refused) as caught:
        mapped(command, nobody)
    refusal = caught.value.refusal
    assert refusal.stage == "identity"
    assert ALICE in refusal.reason_for_admin
    assert "alice@example.org is not mapped" in refusal.reason_for_user


def test_a_failing_program_is_a_temporary_refusal(command: StartEndpoint) -> None:
    program = "/opt/site/map"
    document = [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [program]}]
    with pytest.raises(Refused) as caught:
        mapped(command, [*document, *MAPPING])
    assert "status 3" in caught.value.refusal.reason_for_admin
    assert "temporary" in caught.value.refusal.reason_for_user
    assert program not in caught.value.refusal.reason_for_user
