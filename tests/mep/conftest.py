"""Parts of a request that several test files need."""

from __future__ import annotations

import copy
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mep.profile.profile import Profile
from mep.reader import loader
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.start_endpoint import StartEndpoint
from mep.worker.commands import decode
from tests.mep.commands import ALICE, COMMAND, MAPPING, delivery
from tests.mep.service import Service


@pytest.fixture
def message() -> dict[str, Any]:
    """A start command, to be changed at will."""
    return copy.deepcopy(COMMAND)


@pytest.fixture
def command(message: dict[str, Any]) -> StartEndpoint:
    return decode(delivery(message), "r1", time.time())


@pytest.fixture
def alice() -> Account:
    return Account("alice", 54321, 54321, "Alice", "/home/alice", "/bin/bash", (54321, 100))


@pytest.fixture
def identity_of_alice() -> MappedIdentity:
    return MappedIdentity("alice", ALICE, "mapping.json:3", [[{ALICE: ["alice"]}]])


@pytest.fixture
def profile_directory(tmp_path: Path) -> Path:
    """A whole profile, to be spoiled at will."""
    directory = tmp_path / "prod"
    directory.mkdir(mode=0o755)
    mapping = directory / "mapping.json"
    mapping.write_text(json.dumps(MAPPING))
    (directory / "config.yaml").write_text(f"display_name: Prod\nidentity_mapping_config_path: {mapping}\n")
    (directory / "user_config_template.yaml.j2").write_text(
        "engine:\n  type: ThreadPoolEngine\n  max_workers: {{ WORKERS }}\n"
    )
    (directory / "user_config_schema.json").write_text('{"type": "object"}')
    (directory / "user_environment.yaml").write_text("SITE: here\nNUMBER: 5\n")
    return directory


@pytest.fixture
def profile(profile_directory: Path) -> Profile:
    return loader.load(profile_directory)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The one that `globus_sdk` finds by the environment."""
    told = Service()
    server = told.start()
    monkeypatch.delenv("GLOBUS_SDK_ENVIRONMENT", raising=False)
    for name in ("COMPUTE", "AUTH"):
        monkeypatch.setenv(f"GLOBUS_SDK_SERVICE_URL_{name}", told.url)
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Whoever waits for something that never comes is woken with an error."""

    def wake(number: int, frame: FrameType | None) -> None:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
