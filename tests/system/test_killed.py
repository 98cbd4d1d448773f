"""User endpoints that are killed again and again while their user goes on submitting: each task has one fate."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.system.sites import site_of

pytestmark = pytest.mark.system

ACCOUNT = "mepkilled_alice"
KILLS = 15

STREAM = """
import json, os, sys, threading, time
from globus_compute_sdk import Executor

def task(folder, n):
    import time
    with open(f"{folder}/runs", "a") as runs:
        runs.write(f"{n} {time.time()}\\n")
    time.sleep(0.01)
    return n

told = {}

def note(n, future):
    told[n] = [time.time(), None if future.exception() is None else str(future.exception())]

endpoint, folder, end = sys.argv[1:]
with Executor(endpoint_id=endpoint, api_burst_limit=40, api_burst_window_s=4) as ex:
    futures = []
    while not os.path.exists(end):
        for _ in range(20):
            futures.append(ex.submit(task, folder, len(futures)))
            futures[-1].add_done_callback(lambda f, n=len(futures) - 1: note(n, f))
        time.sleep(0.25)
    for future in futures:
        future.exception(timeout=120)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, root: None) -> Iterator[ManagerProcess]:
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    with LocalAccount(ACCOUNT), site_of(folder, hub, "killed", mapping=mapping, config={"public": True}) as running:
        yield running


def test_no_task_is_silent_and_none_that_was_told_as_failed_runs_afterwards(
    hub: HubProcess, site: ManagerProcess, tmp_path: Path
) -> None:
    folder, end = Path(f"~{ACCOUNT}").expanduser(), tmp_path / "end"
    tmp_path.chmod(0o755)
    runs = folder / "runs"

    def works() -> int:
        """The pid of a user endpoint that has begun to work since the last kill."""
        started = site.audit("started")
        return started[-1]["pid"] if len(started) > len(killed) and lines() > seen else 0

    def lines() -> int:
        return runs.read_text().count("\n") if runs.exists() else 0

    killed: list[int] = []
    with ThreadPoolExecutor(1) as client:
        said = client.submit(run_script, hub, "alice", STREAM, site.endpoint_id, str(folder), str(end), timeout=300)
        try:
            for _ in range(KILLS):
                seen = lines()
                pid = until(lambda: said.done() or works(), "a user endpoint that works", 60)
                until(lambda: random.random() < 0.1, "a moment")
                assert not said.done(), said.result()
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        finally:
            end.touch()
        ((told),) = said.result()
    ran: dict[str, list[float]] = {}
    for line in runs.read_text().splitlines():
        number, at = line.split()
        ran.setdefault(number, []).append(float(at))
    failed = {n: (at, why) for n, (at, why) in told.items() if why is not None}
    assert len(told) > 100, "a stream of tasks"
    assert [n for n, times in ran.items() if len(times) > 1] == [], "run twice"
    assert {n: why for n, (at, why) in failed.items() if any(run > at for run in ran.get(n, ()))} == {}
    assert {n for n, (_, why) in told.items() if why is None} <= ran.keys()
