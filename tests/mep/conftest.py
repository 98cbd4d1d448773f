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

from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.start_endpoint import StartEndpoint
from mep.worker.commands import decode
from wire.consumer import Delivery

MANAGER = "ee9d42e2-85b1-487f-a350-9712bb321d5f"
UEP = "feef5f81-edd9-5023-9ac5-7510955c05a6"
ALICE = "2f252320-f8bb-52e8-8b23-773b37352928"
URL = "amqp://user:hunter2@127.0.0.1:5672/%2F"


def target(kind: str) -> dict[str, Any]:
    publish = {"exchange": kind, "routing_key": f"{UEP}.{kind}", "mandatory": True, "properties": {"delivery_mode": 2}}
    return {"connection_url": URL, "exchange": kind, "queue": kind, "queue_publish_kwargs": publish}


COMMAND: dict[str, Any] = {
    "command": "cmd_start_endpoint",
    "globus_username": "alice@example.org",
    "globus_effective_identity": ALICE,
    "globus_identity_set": [{"sub": ALICE, "id": ALICE, "username": "alice@example.org", "status": "used"}],
    "kwargs": {
        "name": f"uep.{MANAGER}.{UEP}",
        "user_opts": {"WORKERS": 2},
        "user_runtime": {"globus_compute_sdk_version": "4.19.0", "python": {"version": "3.11.2"}},
        "amqp_creds": {
            "endpoint_id": UEP,
            "task_queue_info": {"connection_url": URL, "exchange": "tasks", "queue": f"{UEP}.tasks"},
            "result_queue_info": target("results"),
            "heartbeat_queue_info": target("heartbeats"),
        },
    },
}


def delivery(body: object, **properties: Any) -> Delivery:
    """A delivery as the service sends it; `properties` replace its own."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Delivery(1, raw, **{"content_type": "application/json", "timestamp": round(time.time()), **properties})


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


MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(.*)@example\\.org", "output": "{0}"}],
    }
]


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
def no_hang() -> Iterator[None]:
    """Whoever waits for something that never comes is woken with an error."""

    def wake(number: int, frame: FrameType | None) -> None:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
