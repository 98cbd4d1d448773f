"""Stages tried without a request: mapping programs are asked as the manager asks them, and `mep map` shows it."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.cli import dry_run
from mep.processes import forked
from mep.profile.profile import Profile
from mep.reader import loader

pytestmark = pytest.mark.usefixtures("root")

RECORD = dry_run.identity_record("alice@example.org")


@pytest.fixture
def asks(profile_directory: Path) -> Iterator[Profile]:
    """A profile whose mapping asks a program, which maps everybody to the account that it runs as."""
    said = json.dumps({"result": [{"id": RECORD["id"], "output": "$(id -un)"}]}).replace('"', '\\"')
    with tempfile.TemporaryDirectory(prefix="mep-test-") as folder:  # pytest's own is closed to others
        Path(folder).chmod(0o755)
        program = Path(folder) / "map"
        program.write_text(f'#!/bin/sh\ncat >/dev/null\necho "{said}"\n')
        program.chmod(0o755)
        document = {"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(program)]}
        (profile_directory / "mapping.json").write_text(json.dumps([document]))
        yield loader.load(profile_directory)


def test_a_mapping_program_is_asked_as_the_mapping_account(asks: Profile) -> None:
    assert asyncio.run(dry_run.decide(asks, [RECORD])).account == "mep-map"


def test_whoever_is_not_root_is_told_to_be(asks: Profile) -> None:
    def ask() -> object:
        os.setuid(65534)
        return asyncio.run(dry_run.decide(asks, [RECORD]))

    with pytest.raises(OSError, match="be root to have them asked"):  # of another process, so only its text comes
        asyncio.run(forked.run(ask))
