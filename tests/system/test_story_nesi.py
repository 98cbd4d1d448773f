"""NeSI: two multi-user endpoints, one for its login node and one for Slurm, for who has linked an identity of NeSI."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import slurm
from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.slurm import SlurmNode
from tests.conftest import need

pytestmark = pytest.mark.system

ACCOUNT = "mepnesi_al"
LINKED = [{"source": "{username}", "match": "(al)@other\\.example", "output": "mepnesi_{0}"}]
"""The site's own identity provider, which alice has linked to the identity that she logs in with."""
LOGIN = "engine: {type: ProcessPoolEngine, max_workers: 1}\n"
SLURM = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 1
  provider:
    type: SlurmProvider
    account: {{ ACCOUNT_ID }}
    walltime: {{ WALL_TIME | default("00:05:00") }}
    exclusive: false
    cores_per_node: 1
    scheduler_options: |
      #SBATCH --mem-per-cpu={{ MEM_PER_CPU | default("2G") }}
      {%- if GPUS_PER_NODE is defined %}
      #SBATCH --gpus-per-node={{ GPUS_PER_NODE }}
      {%- endif %}
    init_blocks: 0
    min_blocks: 0
    max_blocks: 1
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "ACCOUNT_ID": {"type": "string", "pattern": "^[a-z]+[0-9]+$", "examples": ["nesi00001"]},
        "WALL_TIME": {"type": "string", "pattern": "^([0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2}$", "default": "00:05:00"},
        "MEM_PER_CPU": {"type": "string", "pattern": "^[1-9][0-9]*[MG]$", "default": "2G"},
        "GPUS_PER_NODE": {"type": "string", "pattern": "^([A-Za-z0-9]+:)?[1-9]$", "examples": ["1"]},
    },
    "required": ["ACCOUNT_ID"],
    "additionalProperties": False,
}
ASK = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed

def of_job():
    import os, subprocess
    return subprocess.check_output(["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]], text=True)

def submit():
    import subprocess
    said = subprocess.check_output(["sbatch", "--parsable", "--account=nesi00003", "--wrap", "sleep 600"], text=True)
    return said.strip()

def look(job):
    import subprocess
    return subprocess.check_output(["squeue", "--noheader", "--jobs", job, "--format=%u %a"], text=True).split()

with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    try:
        said = [ex.submit(globals()[sys.argv[3]], *sys.argv[4:]).result(timeout=100)]
    except TaskExecutionFailed as e:
        said = str(e)
print(json.dumps(said))
"""
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def node(folder: Path, root: None) -> Iterator[SlurmNode]:
    need(slurm.obstacle() is None, slurm.obstacle() or "")
    with SlurmNode(folder / "slurm-nesi") as running:
        yield running


@pytest.fixture(scope="module")
def endpoints(folder: Path, hub: HubProcess, node: SlurmNode) -> Iterator[dict[str, ManagerProcess]]:
    """Both, by their names."""
    templates: dict[str, dict[str, Any]] = {
        "nesi-login": {"template": LOGIN, "schema": {"type": "object"}},
        "nesi-slurm": {"template": SLURM, "schema": SCHEMA},
    }
    sites = {
        name: ManagerProcess(
            folder / name, hub, "admin", mapping=LINKED, name=name, config={"public": True}, **of_profile
        )
        for name, of_profile in templates.items()
    }
    with LocalAccount(ACCOUNT):
        try:
            for site in sites.values():
                site.configure()
                (site.profile / "user_environment.yaml").write_text(yaml.safe_dump(node.environment))
                site.start()
            yield sites
        finally:
            for site in sites.values():
                site.stop()


@pytest.fixture
def ask(hub: HubProcess, endpoints: dict[str, ManagerProcess]) -> Ask:
    """`ask(endpoint, function, *arguments, user="alice", **options)`: [value], or the text of the error."""

    def run(endpoint: str, function: str, *arguments: str, user: str = "alice", **options: str) -> Any:
        endpoint_id = endpoints[endpoint].endpoint_id
        (said,) = run_script(hub, user, ASK, endpoint_id, json.dumps(options), function, *arguments)
        return said

    return run


def facts(said: str) -> dict[str, str]:
    """What `scontrol show job` says, by its names."""
    return dict(re.findall(r"(\S+?)=(\S*)", said))


def test_what_a_job_has_by_default(ask: Ask) -> None:
    (said,) = ask("nesi-slurm", "of_job", ACCOUNT_ID="nesi00001")
    job = facts(said)
    assert job["UserId"].startswith(f"{ACCOUNT}(")
    expected = {"Account": "nesi00001", "TimeLimit": "00:05:00", "MinMemoryCPU": "2G", "NumCPUs": "1"}
    assert {**job, **expected} == job
    assert "gpu" not in said


def test_what_a_job_has_by_options(ask: Ask) -> None:
    options = {"WALL_TIME": "00:10:00", "MEM_PER_CPU": "500M", "GPUS_PER_NODE": "1"}
    (said,) = ask("nesi-slurm", "of_job", ACCOUNT_ID="nesi00002", **options)
    job = facts(said)
    expected = {"Account": "nesi00002", "TimeLimit": "00:10:00", "MinMemoryCPU": "500M"}
    assert {**job, **expected} == job
    assert job["TresPerNode"].endswith("gpu:1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "'ACCOUNT_ID' is missing"),
        ({"ACCOUNT_ID": "nesi00001", "MEM_PER_CPU": "2G --nodelist=lab1"}, "MEM_PER_CPU"),
        ({"ACCOUNT_ID": "nesi00001", "GPUS_PER_NODE": "3"}, "Requested node configuration is not available"),
        ({"ACCOUNT_ID": "nesi00001", "WALLTIME": "00:10:00"}, "WALLTIME"),
    ],
)
def test_what_cannot_be_had_is_told(ask: Ask, options: dict[str, str], told: str) -> None:
    assert told in ask("nesi-slurm", "of_job", **options)


def test_the_login_node_submits_a_job_and_looks_at_it(ask: Ask, node: SlurmNode) -> None:
    (job,) = ask("nesi-login", "submit")
    assert ask("nesi-login", "look", job) == [[ACCOUNT, "nesi00003"]]


def test_who_has_linked_nothing_is_told(ask: Ask) -> None:
    assert "not mapped" in ask("nesi-login", "submit", user="bob")
