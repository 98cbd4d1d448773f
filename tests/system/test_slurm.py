"""Tasks in jobs of a real Slurm, as the mapped accounts; and what PBS Pro would be asked to do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from lab import slurm
from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.process import signal_ours
from lab.slurm import SlurmNode
from lab.waiting import until
from mep.cli import asking
from tests.conftest import need
from uep.engines.base import EngineContext
from uep.engines.registry import make_engine

pytestmark = pytest.mark.system

ACCOUNTS = {"alice": "meptest_slurm1", "bob": "meptest_slurm2"}
MAPPING = [
    {"source": "{username}", "match": f"{user}@example\\.org", "output": name} for user, name in ACCOUNTS.items()
]
TEMPLATE = """\
heartbeat_period: 0.5
idle_heartbeats_soft: {{ SOFT | default(6) }}
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 1
  heartbeat_period: 1
  heartbeat_threshold: {{ THRESHOLD | default(5) }}
  max_retries_on_system_failure: {{ RETRIES | default(0) }}
  strategy: {{ STRATEGY | default("none") }}
  job_status_kwargs: {max_idletime: 1, strategy_period: 0.5}
  worker_patience: {{ WORKER_PATIENCE | default(600) }}
  provider:
    type: SlurmProvider
    partition: {{ PARTITION | default("debug") }}
    account: {{ ACCOUNT | default() }}
    scheduler_options: {{ SCHEDULER_OPTIONS | default() }}
    worker_init: {{ WORKER_INIT | default() }}
    exclusive: false
    cores_per_node: 1
    walltime: 00:10:00
    init_blocks: 1
    min_blocks: 0
    max_blocks: {{ BLOCKS | default(1) }}
"""
SCHEMA: dict[str, Any] = {"type": "object"}

# Prints what became of each call of `task`: {"value": ...} or {"error": text}.
CALLS = """
import json, sys
from globus_compute_sdk import Executor
{task}
with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    for future in [ex.submit(task, n) for n in range({count})]:
        error = future.exception(timeout=100)
        print(json.dumps({{"error": str(error)}} if error else {{"value": future.result()}}))
"""
FACTS = """
def task(n):
    import os, subprocess
    job = os.environ["SLURM_JOB_ID"]
    asked = subprocess.run(["squeue", "-h", "-j", job, "-o", "%u %t %P"], capture_output=True, text=True, check=True)
    return {"uid": os.getuid(), "job": job, "squeue": asked.stdout.split()}
"""
MEET = """
def task(n):
    import os, pathlib, time
    job = os.environ["SLURM_JOB_ID"]
    place = pathlib.Path.home() / "meeting"
    place.mkdir(exist_ok=True)
    (place / job).touch()
    while len(list(place.iterdir())) < 2:
        time.sleep(0.05)
    return job
"""
# Waits, but only the first time.
WAIT = """
def task(n):
    import os, pathlib, time
    seen = pathlib.Path.home() / "seen"
    first = not seen.exists()
    seen.touch()
    while first:
        time.sleep(0.05)
    return os.environ["SLURM_JOB_ID"]
"""

# Prints each state of a task that a client sees, and leaves a file of that name, for which test and task wait.
STATES = """
import json, pathlib, sys, time
from globus_compute_sdk import Client
def task(path):
    import pathlib, time
    while not pathlib.Path(path).exists():
        time.sleep(0.05)
endpoint, options, folder = sys.argv[1:]
client = Client()
batch = client.create_batch(user_endpoint_config=json.loads(options))
batch.add(client.register_function(task), (folder + "/running",))
((submitted,),) = client.batch_run(endpoint, batch)["tasks"].values()
seen = []
while (told := client.get_task(submitted))["pending"]:
    if told["status"] not in seen:
        seen.append(told["status"])
        (pathlib.Path(folder) / told["status"]).touch()
    time.sleep(0.1)
print(json.dumps([*seen, told["status"]]))
"""

# The engine alone, with Parsl's own heartbeat_threshold: two minutes.
ENGINE = """
import json, os, sys, time
from pathlib import Path
from uep.engines.registry import make_engine
from uep.engines.base import EngineContext

engine = make_engine(json.loads(sys.argv[1]), EngineContext("lab", Path.cwd()))
engine.start()
while not engine.status()["managers"]:
    time.sleep(0.05)
print("ready", flush=True)
time.sleep(600)
"""
SLURM = {"type": "SlurmProvider", "exclusive": False, "cores_per_node": 1}


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[SlurmNode]:
    need(slurm.obstacle() is None, slurm.obstacle() or "")
    with SlurmNode(folder / "slurm") as running:
        yield running


@pytest.fixture(scope="module")
def people(node: SlurmNode) -> Iterator[dict[str, LocalAccount]]:
    """Accounts by the name of the hub's user."""
    with LocalAccount(ACCOUNTS["alice"]) as alice, LocalAccount(ACCOUNTS["bob"]) as bob:
        yield {"alice": alice, "bob": bob}


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, node: SlurmNode, people: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    """A manager whose user endpoints may submit to the node."""
    config = {"public": True, "mu_child_ep_grace_period_s": 0, "unknown_options": "ignore"}
    site = ManagerProcess(
        folder / "batch", hub, "admin", mapping=MAPPING, template=TEMPLATE, schema=SCHEMA, config=config, name="batch"
    )
    site.configure()
    (site.profile / "user_environment.yaml").write_text(yaml.safe_dump(node.environment))
    site.start()
    try:
        yield site
    finally:
        site.stop()


@pytest.fixture(autouse=True)
def clean(people: dict[str, LocalAccount]) -> None:
    """No trace of what an earlier task has seen."""
    for account in people.values():
        (account.home / "seen").unlink(missing_ok=True)


@pytest.fixture
def call(hub: HubProcess, site: ManagerProcess) -> Callable[..., list[dict[str, Any]]]:
    """`call(user, task, count=1, **options)` runs the function `task` that often; what came of each call."""

    def run(user: str, task: str, count: int = 1, **options: Any) -> list[dict[str, Any]]:
        script = CALLS.format(task=task, count=count)
        return run_script(hub, user, script, site.endpoint_id, json.dumps(options))

    return run


def jobs_of(node: SlurmNode, account: LocalAccount) -> list[str]:
    return [job.id for job in node.jobs() if job.user == account.name]


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_a_task_runs_in_a_job_of_the_mapped_account(call: Any, people: dict[str, LocalAccount], user: str) -> None:
    (said,) = call(user, FACTS)
    facts = said["value"]
    assert facts["uid"] == people[user].uid
    assert facts["squeue"] == [people[user].name, "R", "debug"]


def test_status_tells_of_a_job_from_which_no_worker_comes(call: Any, site: ManagerProcess) -> None:
    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(call, "alice", FACTS, WORKER_INIT="sleep 600", WORKER_PATIENCE=16)
        until(lambda: "no worker has registered" in site.run("status", site.name).stdout, "status to tell", 60)
        (said,) = waiting.result()
    assert "no worker has registered" in said["error"]
    until(lambda: "registered" not in site.run("status", site.name).stdout, "it to be over", 60)


def test_a_client_is_told_what_its_task_waits_for(
    hub: HubProcess, node: SlurmNode, site: ManagerProcess, folder: Path
) -> None:
    seen = folder / "states"
    seen.mkdir()
    with ThreadPoolExecutor(1) as client:
        options = json.dumps({"SCHEDULER_OPTIONS": "#SBATCH --hold"})
        said = client.submit(run_script, hub, "alice", STATES, site.endpoint_id, options, str(seen))
        until(lambda: (seen / "waiting-for-nodes").exists() or said.done(), "the client to be told so", 60)
        (job,) = until(lambda: [job for job in node.jobs() if job.state == "PD"], "its job to wait")
        node.run("scontrol", "release", job.id)
        assert said.result()[0][-3:] == ["waiting-for-nodes", "running", "success"]


def test_blocks_scale_out_under_load_and_in_again(
    call: Any, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    options = {"STRATEGY": "simple", "BLOCKS": 2, "SOFT": 0}
    jobs = [said["value"] for said in call("alice", MEET, count=2, **options)]
    assert len(set(jobs)) == 2, "each was running while the other was"
    until(lambda: not set(jobs) & set(jobs_of(node, people["alice"])), "the jobs to be cancelled")
    (again,) = call("alice", FACTS, **options)
    assert again["value"]["job"] not in jobs


def test_nothing_is_left_in_the_queue_when_an_endpoint_has_become_idle(
    call: Any, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    (said,) = call("bob", FACTS, CASE="idle")
    exited = site.wait_for("exited", pid=site.audit("started")[-1]["pid"])
    assert exited["ending"] == "exit status 0"
    until(lambda: said["value"]["job"] not in jobs_of(node, people["bob"]), "its job to be cancelled")


def test_a_task_whose_job_is_cancelled_ends_in_an_error(
    call: Any, node: SlurmNode, people: dict[str, LocalAccount]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(call, "alice", WAIT, CASE="cancelled")
        cancel_the_job_of_the_waiting_task(node, people["alice"])
        assert "loss of manager" in said.result()[0]["error"]


def test_a_task_whose_job_is_cancelled_runs_again_if_it_may(
    call: Any, node: SlurmNode, people: dict[str, LocalAccount]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(call, "bob", WAIT, RETRIES=1, STRATEGY="simple")
        cancelled = cancel_the_job_of_the_waiting_task(node, people["bob"])
        assert said.result()[0]["value"] not in cancelled


def cancel_the_job_of_the_waiting_task(node: SlurmNode, account: LocalAccount) -> list[str]:
    """The jobs that this has ended: all of the account's."""
    until((account.home / "seen").exists, "the task to run", patience=180)
    jobs = jobs_of(node, account)
    node.run("scancel", *jobs)
    return jobs


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"PARTITION": "nosuch"}, "sbatch: error: invalid partition specified: nosuch"),
        ({"PARTITION": "closed", "ACCOUNT": "physics"}, "Invalid account or account/partition combination specified"),
        ({"SCHEDULER_OPTIONS": "#SBATCH --mem=1T"}, "Memory specification can not be satisfied"),
    ],
)
def test_what_slurm_refuses_ends_in_an_error_with_its_words(call: Any, options: dict[str, Any], told: str) -> None:
    (said,) = call("alice", FACTS, **options)
    assert told in said["error"]


@contextlib.contextmanager
def while_it_runs(account: LocalAccount, ask: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """Inside, the task that `ask` waits for runs; gives the future of its answer."""
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(ask, *arguments, **options)
        until(lambda: said.done() or (account.home / "seen").exists(), "the task to run", patience=180)
        assert not said.done(), said.result()
        yield said


# Those of alice have been refused three times: after one more that ends without a result she would be held back.
def test_a_user_endpoint_that_is_killed_keeps_no_job(
    call: Any, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    bob = people["bob"]
    with while_it_runs(bob, call, "bob", WAIT, CASE="killed") as said:
        signal_ours(site.audit("started")[-1]["pid"], signal.SIGKILL)
        assert "SIGKILL" in said.result()[0]["error"]
    until(lambda: not jobs_of(node, bob), "its job to end")


def test_an_order_to_kill_ends_the_batch_jobs(
    call: Any, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    """In good order, so also a job that waits in the queue; the command comes back when it is done."""
    bob = people["bob"]
    with while_it_runs(bob, call, "bob", WAIT, SOFT=61) as said:
        assert jobs_of(node, bob)
        done = site.run("kill", site.name, "--user", bob.name, "--reason", "the node is needed")
        assert done.returncode == 0, done.stderr
        until(lambda: not jobs_of(node, bob), "its job to end", patience=20)
        assert "the node is needed" in said.result()[0]["error"]
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(call, "bob", FACTS, SCHEDULER_OPTIONS="#SBATCH --hold")
        until(lambda: waits.done() or jobs_of(node, bob), "a job in the queue", patience=180)
        assert site.run("kill", site.name, "--all").returncode == 0
        until(lambda: not jobs_of(node, bob), "its job to be cancelled", patience=20)
        assert "The administrators" in waits.result()[0]["error"]


def said_jobs(site: ManagerProcess) -> list[str]:
    """The batch jobs that the newest user endpoint has told of."""
    pid = site.audit("started")[-1]["pid"]
    told = asking.user_endpoints(site.folder / "run" / site.name) or []
    return [job for each in told if each["pid"] == pid for job in each["batch_jobs"] or []]


def test_an_order_to_kill_one_that_stands_still_ends_what_runs_in_its_job(
    hub: HubProcess, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    """It cannot cancel its jobs, and is killed: the job ends since nobody is there for its workers."""
    bob = people["bob"]
    script = CALLS.format(task=WAIT, count=1).replace("timeout=100", "timeout=300")
    asked = hub, "bob", script, site.endpoint_id, json.dumps({"SOFT": 62})
    with while_it_runs(bob, run_script, *asked, timeout=300) as said:
        (job,) = until(lambda: said_jobs(site) and jobs_of(node, bob), "its job to be told of")
        signal_ours(site.audit("started")[-1]["pid"], signal.SIGSTOP)
        done = site.run("kill", site.name, "--user", bob.name, "--reason", "it hangs")
        assert done.returncode == 0 and "SIGKILL" in done.stdout, done.stderr
        assert "it named" in done.stdout and job in done.stdout
        assert "it hangs" in said.result()[0]["error"]
    until(lambda: not jobs_of(node, bob), "its job to end")


def test_a_killed_engine_takes_its_jobs_with_it(node: SlurmNode, people: dict[str, LocalAccount]) -> None:
    """At once, or when its pool, which may not have registered yet, hears nothing for `heartbeat_threshold`."""
    bob = people["bob"]
    engine_options = {
        "type": "GlobusComputeEngine",
        "provider": SLURM,
        "heartbeat_period": 5,
        "heartbeat_threshold": 20,
    }
    with subprocess.Popen(
        [sys.executable, "-c", ENGINE, json.dumps(engine_options)],
        env={**node.environment, "HOME": str(bob.home)},
        cwd=bob.home,
        user=bob.uid,
        group=bob.gid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
    ) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
        assert jobs_of(node, bob)
        engine.kill()
    until(lambda: not jobs_of(node, bob), "its job to end", patience=120)


def test_a_killed_interchange_is_told_and_keeps_no_job(
    call: Any, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    bob = people["bob"]
    with while_it_runs(bob, call, "bob", WAIT, THRESHOLD=300) as said:
        endpoint = psutil.Process(site.audit("started")[-1]["pid"])
        (interchange,) = (child for child in endpoint.children() if "interchange" in " ".join(child.cmdline()))
        interchange.kill()
        assert "Parsl's interchange ended unexpectedly" in said.result()[0]["error"]
    until(lambda: not jobs_of(node, bob), "its job to be cancelled")


def test_what_slurm_refuses_later_ends_in_an_error_too(
    call: Any, node: SlurmNode, people: dict[str, LocalAccount]
) -> None:
    options = {"STRATEGY": "simple", "SOFT": 0}
    (said,) = call("bob", FACTS, **options)
    until(lambda: said["value"]["job"] not in jobs_of(node, people["bob"]), "the job to be cancelled")
    node.run("scontrol", "update", "PartitionName=debug", "State=INACTIVE")
    try:
        (refused,) = call("bob", FACTS, **options)
    finally:
        node.run("scontrol", "update", "PartitionName=debug", "State=UP")
    assert "Required partition not available (inactive or drain)" in refused["error"]


def test_the_end_of_the_manager_ends_all_jobs_running_or_waiting(
    call: Any, node: SlurmNode, site: ManagerProcess, people: dict[str, LocalAccount]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(call, "bob", FACTS, SCHEDULER_OPTIONS="#SBATCH --hold")
        call("alice", FACTS, SOFT=0)
        until(lambda: {"R", "PD"} <= {job.state for job in node.jobs()}, "one job to run and one to wait")
        site.stop()
        until(lambda: not node.jobs(), "all jobs to be cancelled")
        assert "stopped" in said.result()[0]["error"]
    site.start()


PBS_ENGINE = {
    "type": "GlobusComputeEngine",
    "address": "127.0.0.1",
    "max_workers_per_node": 2,
    "provider": {
        "type": "PBSProProvider",
        "queue": "debug",
        "account": "physics",
        "walltime": "00:20:00",
        "nodes_per_block": 2,
        "cpus_per_node": 32,
        "select_options": "ngpus=4",
        "scheduler_options": "#PBS -l filesystems=home",
        "worker_init": "module load conda",
        "launcher": {"type": "MpiExecLauncher", "bind_cmd": "--cpu-bind", "overrides": "--depth=64 --ppn 1"},
    },
}
# Stands for all three commands: notes its arguments, keeps the script, and answers as PBS Pro would.
PBS = """\
#!/bin/sh
echo "${0##*/} $*" >>"${0%/*}/said"
case $0 in
*/qsub) for script; do :; done; cp "$script" "${0%/*}/script"; echo 17.lab ;;
*/qstat) echo '{"Jobs": {"17.lab": {"job_state": "Q"}}}' ;;
esac
"""


def test_what_pbs_is_asked_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qsub", "qstat", "qdel"):
        (tmp_path / name).write_text(PBS)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said, script = tmp_path / "said", tmp_path / "script"
    engine = make_engine(PBS_ENGINE, EngineContext("lab", tmp_path))
    engine.start()
    until(said.exists, "a job to be submitted")
    engine.stop()
    submitted, *_, cancelled = said.read_text().splitlines()
    assert submitted.split()[:5] == ["qsub", "-q", "debug", "-A", "physics"]
    assert cancelled == "qdel 17.lab"
    lines = script.read_text().splitlines()
    for line in (
        "#PBS -l walltime=00:20:00",
        "#PBS -l select=2:ncpus=32:ngpus=4",
        "#PBS -l filesystems=home",
        "module load conda",
    ):
        assert line in lines
    (start,) = [line for line in lines if line.startswith("mpiexec")]
    assert "--depth=64 --ppn 1" in start
