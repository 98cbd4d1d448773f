"""A user endpoint that stops because it is idle, in the very moment in which a start command and a task come for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.system.sites import TEMPLATE, site_of

pytestmark = pytest.mark.system

ACCOUNT = "mepidle_alice"
SLOW_END = "{%- if END is defined %}\nendpoint_teardown: {{ END }}\n{%- endif %}\n"

SCRIPT = """
import json, random, sys, time
from globus_compute_sdk import Executor

def where():
    import os
    return os.getpid()

options, rounds, longest = json.loads(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with Executor(endpoint_id=sys.argv[1], user_endpoint_config=options, api_burst_limit=8, api_burst_window_s=1) as ex:
    for _ in range(rounds):
        print(json.dumps(ex.submit(where).result(timeout=90)), flush=True)
        time.sleep(random.uniform(0, longest))
"""


TWICE = """
import json, os, sys, time
from globus_compute_sdk import Executor

with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    print(json.dumps(ex.submit(os.getpid).result(timeout=90)), flush=True)
    time.sleep(3)
    print(json.dumps(ex.submit(os.getpid).result(timeout=60)), flush=True)
"""


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, root: None) -> Iterator[ManagerProcess]:
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    config = {"public": True, "mu_child_ep_grace_period_s": 1, "limits": {"starts_per_minute_per_user": None}}
    with (
        LocalAccount(ACCOUNT),
        site_of(folder, hub, "idle", mapping=mapping, template=TEMPLATE + SLOW_END, config=config) as running,
    ):
        yield running


@pytest.mark.parametrize(
    ("options", "rounds", "longest"),
    [
        ({"PERIOD": 0.15, "SOFT": 1}, 40, 0.4),
        ({"PERIOD": 0.5, "SOFT": 1, "ENGINE": "GlobusComputeEngine"}, 8, 3),
    ],
    ids=["threads", "htex"],
)
def test_every_task_is_answered(
    hub: HubProcess, site: ManagerProcess, options: dict[str, object], rounds: int, longest: float
) -> None:
    before = len(site.audit("exited"))
    said = run_script(
        hub, "alice", SCRIPT, site.endpoint_id, json.dumps(options), str(rounds), str(longest), timeout=300
    )
    assert len(said) == rounds
    exits = site.audit("exited")[before:]
    assert len(exits) > rounds // 5, "often enough one was idle"
    assert {line["ending"] for line in exits} == {"exit status 0"}


def test_a_task_that_comes_while_its_predecessor_ends_for_long(hub: HubProcess, site: ManagerProcess) -> None:
    """Longer than a start command is remembered: the predecessor took no more tasks when it came. The successor is
    started by that command, and does not need another one from the service: that would come 5 s after the first."""
    # In the midst between two commands of the service: 0.5 s after the first one, a busy machine was too late.
    options = {"PERIOD": 0.15, "SOFT": 1, "END": "sleep 7.5"}
    first, second = run_script(hub, "alice", TWICE, site.endpoint_id, json.dumps(options))
    kept = {line["request"] for line in site.audit("refreshed") if line["pid"] == first}
    assert site.wait_for("started", pid=second)["request"] in kept
    assert site.wait_for("exited", pid=first)["ending"] == "exit status 0"
    assert second != first
