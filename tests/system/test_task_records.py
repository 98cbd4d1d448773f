"""What a high-assurance endpoint has on record of tasks, with our user endpoint and with the public package's."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import peer
from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.conftest import need
from tests.system.clients import THREE_TASKS
from tests.system.sites import ASSURED_PROGRAM, TEMPLATE, site_of

pytestmark = pytest.mark.system

ASSURED = TEMPLATE.replace("  address:", "  encrypted: {{ ENCRYPTED | default(true) }}\n  address:")
PLACED = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

def wait_for(path):
    import os, time
    while not os.path.exists(path):
        time.sleep(0.05)

with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    future = ex.submit(wait_for, sys.argv[3])
    try:
        future.result(timeout=90)
    except TaskExecutionFailed as e:
        print(json.dumps(str(e)))
    print(json.dumps(future.task_id))
"""


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    second = folder / "recorded" / "public.log"
    config = {"public": True, "high_assurance": True, "public_audit_log_path": str(second)}
    program = (sys.executable, "-I", "-c", ASSURED_PROGRAM)
    with site_of(folder, hub, "recorded", config=config, template=ASSURED, program=program) as manager:
        yield manager


def actions(lines: list[dict[str, Any]], task: str) -> list[str]:
    return [line["action"] for line in lines if line.get("task") == task]


def test_where_a_task_runs_is_on_record_in_both_files(hub: HubProcess, site: ManagerProcess, folder: Path) -> None:
    go_on, done = folder / "go-on", list[Any]()
    words = site.endpoint_id, json.dumps({"ENGINE": "GlobusComputeEngine"}), str(go_on)
    running = threading.Thread(target=lambda: done.extend(run_script(hub, "alice", PLACED, *words)))
    running.start()
    site.wait_for("task", action="RUNNING", block="0")
    go_on.touch()
    running.join()
    (task,) = done
    assert actions(site.audit("task"), task) == ["RECEIVED", "EXEC_START", "RUNNING", "EXEC_END"]
    ended = site.wait_for("task", action="EXEC_END", task=task)
    assert ended["block"] == "0"
    public = [line for line in (site.folder / "public.log").read_text().splitlines() if task in line]
    job = f"bid=0 jid={ended['job']}"
    assert [line.partition(f"tid={task} ")[2] for line in public] == [
        *("bid= RECEIVED", "bid= EXEC_START", f"{job} RUNNING", f"{job} EXEC_END")
    ]
    assert all(f"uid={ended['uid']} pid={ended['pid']} uep={ended['uep']} fid=" in line for line in public)


def test_an_engine_that_does_not_encrypt_is_refused(hub: HubProcess, site: ManagerProcess) -> None:
    (error, _) = run_script(
        hub, "bob", PLACED, site.endpoint_id, json.dumps({"ENGINE": "GlobusComputeEngine", "ENCRYPTED": False}), "/"
    )
    assert "leave out `encrypted: false`" in error


def test_the_public_user_endpoint_is_told_what_it_needs(
    folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]
) -> None:
    """It writes the same records to the same descriptor, and refuses the engines that it holds unfit."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    config = {"public": True, "high_assurance": True, "audit_log_path": str(folder / "of-public.log")}
    config |= {"uep_command": [str(peer.program()), "_start-user-endpoint"]}
    more: dict[str, Any] = {"config": config, "schema": {}, "program": (sys.executable, "-I", "-c", ASSURED_PROGRAM)}
    with site_of(folder, hub, "peerassured", template=ASSURED, **more) as manager:
        (tasks,) = run_script(hub, "alice", THREE_TASKS, manager.endpoint_id)
        lines = [json.loads(line) for line in (folder / "of-public.log").read_text().splitlines()]
        for task in tasks:
            assert actions(lines, task) == ["RECEIVED", "EXEC_START", "EXEC_END"]
        options = json.dumps({"ENGINE": "GlobusComputeEngine", "ENCRYPTED": False})
        (error, _) = run_script(hub, "bob", PLACED, manager.endpoint_id, options, "/")
        assert "High Assurance compliant" in error
