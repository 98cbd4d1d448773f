"""What the tests of identity mapping share: records, documents, real mapping programs, and asking a mapper."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from identity.decision import Decision
from identity.mapper import Mapper
from identity.runner import MapperError
from mep.accounts import look_up
from mep.monitor.stages.mapping_programs import MappingPrograms
from mep.request.account import Account
from mep.request.mapping_program import ProgramFailed
from tests.conftest import need

ALICE = "aaaaaaaa-0001-4000-8000-00000000000a"
BOB = "bbbbbbbb-0002-4000-8000-00000000000b"


def record(identity_id: str = ALICE, username: str = "alice@example.org", **more: object) -> dict[str, object]:
    return {"id": identity_id, "username": username, "status": "used", **more}


def expression(*mappings: Mapping[str, object]) -> dict[str, object]:
    """An expression document; what a mapping leaves out takes the user name of example.org."""
    usual = {"source": "{username}", "match": r"(.*)@example\.org", "output": "{0}"}
    return {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{**usual, **mapping} for mapping in mappings or ({},)],
    }


def external(*command: object, **more: object) -> dict[str, object]:
    return {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(word) for word in command], **more}


def text(*documents: object) -> str:
    return json.dumps(list(documents))


def answer(*results: object, **more: object) -> str:
    """What a mapping program writes."""
    return json.dumps({"result": list(results), **more})


def entry(name: object = "alice", identity_id: str = ALICE) -> dict[str, object]:
    """One result of such an answer."""
    return {"id": identity_id, "output": name}


def decide(mapper: Mapper, identity_set: object, **more: Any) -> Decision:
    """The mapper's decision; mapping programs really run, unless `run` says otherwise."""
    return asyncio.run(mapper.amap(identity_set, **{"run": run, **more}))


async def run(argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
    """Runs a mapping program as the manager does; what fails is what `identity` expects of a runner."""
    try:
        return await run_program(argv, stdin, account)
    except ProgramFailed as e:
        raise MapperError(str(e)) from None


async def run_program(argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
    """Runs a mapping program as the manager does: as nobody, if no account is named."""
    need(os.geteuid() == 0, "mapping programs run as another account: needs root")
    nobody = look_up.account("nobody")
    assert nobody is not None

    async def find(name: str) -> Account | None:
        return look_up.account(name)

    return await MappingPrograms(find, nobody).run(argv, stdin, account)


def write_program(folder: Path, body: str, interpreter: str = "/bin/sh", name: str = "map") -> Path:
    """An executable script."""
    path = folder / name
    path.write_text(f"#!{interpreter}\n{body}\n")
    path.chmod(0o755)
    return path
