"""What the tests of `identity` share: records, documents and real mapping programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

ALICE = "aaaaaaaa-0001-4000-8000-00000000000a"
BOB = "bbbbbbbb-0002-4000-8000-00000000000b"


def record(identity_id: str = ALICE, username: str = "alice@example.org", **more: object) -> dict[str, object]:
    return {"id": identity_id, "username": username, "status": "used", **more}


def expression(*mappings: dict[str, object]) -> dict[str, object]:
    """An expression document; what a mapping leaves out takes the user name of example.org."""
    usual = {"source": "{username}", "match": r"(.*)@example\.org", "output": "{0}"}
    return {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{**usual, **mapping} for mapping in mappings or ({},)],
    }


def external(*command: object) -> dict[str, object]:
    return {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(word) for word in command]}


def text(*documents: object) -> str:
    return json.dumps(list(documents))


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Writes an executable script; by default one for /bin/sh."""

    def write(body: str, interpreter: str = "/bin/sh", name: str = "map") -> Path:
        path = tmp_path / name
        path.write_text(f"#!{interpreter}\n{body}\n")
        path.chmod(0o755)
        return path

    return write
