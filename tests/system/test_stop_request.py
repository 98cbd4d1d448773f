"""A user endpoint that its user stops through the service, in the grace period in which its manager starts it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.sites import site_of

pytestmark = pytest.mark.system

ACCOUNT = "mepstop_alice"

SCRIPT = """
import json, os, sys, time
from globus_compute_sdk import Client, Executor

def forever():
    import time
    time.sleep(600)

with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"PERIOD": 0.5}) as ex:
    client = ex.client
    first = ex.submit(os.getpid)
    print(json.dumps(first.result(timeout=60)), flush=True)
    user_endpoint = client.get_task(first.task_id)["details"]["endpoint_id"]
    tasks = [ex.submit(forever) for _ in range(3)]
    while any(task.task_id is None for task in tasks):
        time.sleep(0.1)
    client.stop_endpoint(user_endpoint)
    print(json.dumps([str(task.exception(timeout=60)) for task in tasks]), flush=True)
"""


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, root: None) -> Iterator[ManagerProcess]:
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    with LocalAccount(ACCOUNT), site_of(folder, hub, "stopping", mapping=mapping) as running:
        yield running


def test_it_ends_with_its_tasks_and_stays_away(hub: HubProcess, site: ManagerProcess) -> None:
    pid, errors = run_script(hub, "alice", SCRIPT, site.endpoint_id)
    assert len(errors) == 3 and all("You have stopped the user endpoint" in error for error in errors)
    first = site.wait_for("exited", pid=pid)
    assert first["ending"] == "exit status 0"
    # The manager starts it once more, as a command came just before its end. It is asked again.
    again = until(lambda: [line for line in site.audit("started") if line["pid"] != pid], "its successor")
    assert site.wait_for("exited", pid=again[0]["pid"])["ending"] == "exit status 0"
    until(lambda: not [p for p in psutil.process_iter(["username"]) if p.info["username"] == ACCOUNT], "nobody there")
    assert len(site.audit("started")) == 2
