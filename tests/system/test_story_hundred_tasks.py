"""The hundred tasks of the document on multi-user endpoints, with its template, on PBS Pro.

PBS Pro is not to be had here: its commands are scripts that run the job on this host. All else is real, mpiexec too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.conftest import need
from tests.system.sites import program

pytestmark = pytest.mark.system

ACCOUNT = "mephundred_alice"
TEMPLATE = """\
display_name: Polaris at ALCF - debug-scaling queue
engine:
  type: GlobusComputeEngine
  address:
    type: address_by_interface
    ifname: lo

  strategy:
    type: SimpleStrategy
    max_idletime: 30

  provider:
    type: PBSProProvider
    queue: debug-scaling

    account: {{ ACCOUNT_ID }}

    # Command to be run before starting a worker
    # e.g., "module load Anaconda; source activate parsl_env"
    worker_init: {{ WORKER_INIT_COMMAND|default() }}

    init_blocks: 0
    min_blocks: 0
    max_blocks: 1
    nodes_per_block: {{ NODES_PER_BLOCK|default(1) }}

    walltime: 1:00:00

    launcher:
      type: MpiExecLauncher

idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760
"""
"""That of the document, but for the name of the interface."""
QSUB = """\
#!/bin/sh
for script; do :; done
cp "$script" "$HOME/submitted"
printf 'node1\\nnode2\\n' >"$HOME/nodes"
PBS_NODEFILE=$HOME/nodes HYDRA_LAUNCHER=fork setsid /bin/bash "$script" >"$HOME/job.out" 2>&1 &
echo $! >"$HOME/job"
echo 4711.polaris-pbs
"""
QSTAT = """\
#!/bin/sh
if kill -0 "$(cat "$HOME/job")" 2>/dev/null; then state=R; else state=F; fi
echo '{"Jobs": {"4711.polaris-pbs": {"job_state": "'$state'"}}}'
"""
QDEL = """\
#!/bin/sh
touch "$HOME/deleted"
kill -TERM -- "-$(cat "$HOME/job")"
"""
TASKS = """
import concurrent.futures, json, sys
from globus_compute_sdk import Executor

def jitter_double(task_num):
    import random
    return task_num, task_num * (1.5 + random.random())

with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    futs = [ex.submit(jitter_double, task_num) for task_num in range(100)]
    for fut in concurrent.futures.as_completed(futs, timeout=100):
        print(json.dumps(fut.result()))
"""


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    need(shutil.which("mpiexec") is not None, "needs mpiexec: lab/setup mpi")
    with LocalAccount(ACCOUNT) as account:
        yield account


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, account: LocalAccount) -> Iterator[ManagerProcess]:
    commands = folder / "pbs"
    commands.mkdir()
    for name, text in {"qsub": QSUB, "qstat": QSTAT, "qdel": QDEL}.items():
        program(commands, name, text)
    mapping = [{"source": "{username}", "match": "(.*)@example\\.org", "output": "mephundred_{0}"}]
    site = ManagerProcess(
        folder / "hundred",
        hub,
        "admin",
        mapping=mapping,
        template=TEMPLATE,
        schema={"type": "object"},
        config={"public": True},
        name="prod_gpu_large",
    )
    site.configure()
    (site.profile / "user_environment.yaml").write_text(yaml.safe_dump({"PATH": f"{commands}:/usr/bin:/bin"}))
    site.start()
    yield site
    site.stop()


def test_each_of_the_hundred_tasks_is_answered_once(
    hub: HubProcess, site: ManagerProcess, account: LocalAccount
) -> None:
    options = {"ACCOUNT_ID": "user_allocation_account_id", "NODES_PER_BLOCK": 2}
    said = run_script(hub, "alice", TASKS, site.endpoint_id, json.dumps(options))
    assert sorted(number for number, _ in said) == list(range(100))
    assert all(1.5 * number <= value <= 2.5 * number for number, value in said)
    assert len(site.audit("started")) == 1, "one user endpoint for all"
    job = (account.home / "submitted").read_text()
    for line in ("#PBS -l walltime=01:00:00", "#PBS -l select=2:ncpus=1", "mpiexec --bind-to none  -n $WORKERCOUNT"):
        assert line in job, job


def test_the_job_ends_with_its_manager(site: ManagerProcess, account: LocalAccount) -> None:
    job = int((account.home / "job").read_text())
    assert job in account.processes()
    site.stop()
    until(lambda: not account.processes(), "user endpoint and job to end", failed=said_by(account))
    assert (account.home / "deleted").exists(), "by qdel"
    site.start()


def said_by(account: LocalAccount) -> Callable[[str], AssertionError]:
    return lambda text: AssertionError(f"{text}: {(account.home / 'job.out').read_text()}")
