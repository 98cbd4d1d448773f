from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from identity.mapper import Mapper
from mep.mapper.mapping import MappedIdentity, identify
from mep.request.refusal import Refused
from mep.worker.commands import StartEndpoint
from tests.mep.conftest import ALICE, MANAGER, MAPPING


def mapped(command: StartEndpoint, documents: object, source: str = "mapping.json") -> MappedIdentity:
    mapper = Mapper.parse(json.dumps(documents, indent=1), source)
    return asyncio.run(identify(command, mapper, MANAGER))


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


def test_a_failing_program_is_a_temporary_refusal(command: StartEndpoint, tmp_path: Path) -> None:
    program = tmp_path / "map"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    document = [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(program)]}]
    with pytest.raises(Refused) as caught:
        mapped(command, [*document, *MAPPING])
    assert "status 3" in caught.value.refusal.reason_for_admin
    assert "temporary" in caught.value.refusal.reason_for_user
    assert str(program) not in caught.value.refusal.reason_for_user
