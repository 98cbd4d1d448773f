"""A whole site, once for all system tests: broker, hub, accounts, manager; and users who run scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.accounts import ALICE, BOB, PREFIX

ACCOUNTS = (ALICE, BOB)
MAPPING = [
    {"source": "{username}", "match": "(alice|bob)@example\\.org", "output": f"{PREFIX}{{0}}"},
    {"source": "{username}", "match": "ghost@example\\.org", "output": f"{PREFIX}nosuch"},
    {"source": "{username}", "match": "rooty@example\\.org", "output": "root"},
    {"source": "{username}", "match": "daemon@example\\.org", "output": "daemon"},
]
TEMPLATE = """\
heartbeat_period: {{ PERIOD | default(5) }}
idle_heartbeats_soft: {{ SOFT | default(0) }}
engine:
  type: {{ ENGINE | default("ThreadPoolEngine") }}
{%- if ENGINE is defined and "Globus" in ENGINE %}
  max_workers_per_node: 1
  address: 127.0.0.1
  provider: {type: LocalProvider, init_blocks: 1, min_blocks: 0, max_blocks: 1}
{%- elif ENGINE is not defined or "Pool" in ENGINE %}
  max_workers: 1
{%- endif %}
{%- if BROKEN is defined %}
broken: {{ NO_SUCH_OPTION }}
{%- endif %}
"""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"PERIOD": {"type": "number", "minimum": 0.1}, "SOFT": {"type": "integer"}},
}

CALL = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

def call():
    import getpass, os
    return {"uid": os.getuid(), "euid": os.geteuid(), "groups": os.getgroups(), "pid": os.getpid(), "cwd": os.getcwd()}

with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    future = ex.submit(call)
    try:
        print(json.dumps(future.result(timeout=20)))
    except TaskExecutionFailed as e:
        print(json.dumps({"error": str(e).strip()}))
"""


@pytest.fixture(scope="session")
def accounts(root: None) -> Iterator[dict[str, LocalAccount]]:
    """Local accounts by name."""
    with LocalAccount(ACCOUNTS[0]) as first, LocalAccount(ACCOUNTS[1]) as second:
        yield {account.name: account for account in (first, second)}


@pytest.fixture(scope="session")
def manager(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    """A manager that maps alice and bob to their accounts, and others to where nobody may go."""
    with ManagerProcess(
        folder / "mep", hub, "admin", mapping=MAPPING, template=TEMPLATE, schema=SCHEMA, config={"public": True}
    ) as running:
        yield running


@pytest.fixture
def call(hub: HubProcess, manager: ManagerProcess) -> Any:
    """Runs a function at the endpoint as a user of the hub: `call(user, **options)` -> facts, or {"error": text}."""
    return caller(hub, manager)


def caller(hub: HubProcess, manager: ManagerProcess) -> Any:
    def run(user: str, **options: Any) -> dict[str, Any]:
        (said,) = run_script(hub, user, CALL, manager.endpoint_id, json.dumps(options))
        assert isinstance(said, dict)
        return said

    return run
