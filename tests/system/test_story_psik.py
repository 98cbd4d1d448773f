"""psik: batch jobs from elsewhere, over an endpoint on a login node; the user's own one, and one of the site."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab import clients, slurm
from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.slurm import SlurmNode
from lab.waiting import until
from tests.conftest import need
from tests.system.terminal import Terminal

pytestmark = pytest.mark.system

ACCOUNT = "meppsik_alice"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ENDPOINT = """\
display_name: Psik Globus Endpoint
public: false
engine:
    type: ThreadPoolEngine
    max_workers: 2
"""
JOB = """\
name: test
script: |
  #!/bin/bash
  hostname
  echo $mpirun as $(id -un) in job $SLURM_JOB_ID
  {then}
resources: {{duration: 5, exclusive_node_use: false}}
backend: site
"""


@pytest.fixture(scope="module")
def node(folder: Path, root: None) -> Iterator[SlurmNode]:
    need(slurm.obstacle() is None, slurm.obstacle() or "")
    need(clients.FOLDER.is_dir(), "needs psik: lab/setup clients")
    with SlurmNode(folder / "slurm-psik") as running:
        yield running


@pytest.fixture(scope="module")
def account(node: SlurmNode) -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as account:
        yield account


@pytest.fixture(scope="module", params=["own", "multi-user"])
def endpoint(
    request: pytest.FixtureRequest, folder: Path, hub: HubProcess, node: SlurmNode, account: LocalAccount
) -> Iterator[str]:
    """The id of an endpoint whose tasks have psik and Slurm."""
    start = own_endpoint if request.param == "own" else multi_user_endpoint
    yield from start(folder, hub, node, account)


def own_endpoint(folder: Path, hub: HubProcess, node: SlurmNode, account: LocalAccount) -> Iterator[str]:
    """As its user sets it up: the client's credentials by variables, the environment with psik for tasks."""
    credentials = hub.client_environment("alice")
    del credentials["GLOBUS_COMPUTE_USER_DIR"]
    terminal = Terminal(account, hub, folder, credentials | {"SLURM_CONF": node.environment["SLURM_CONF"]})
    (account.home / "local_endpoint.yaml").write_text(ENDPOINT)
    terminal.type("globus-compute-endpoint configure --endpoint-config local_endpoint.yaml psik_endpoint")
    assert "alice@example.org" in terminal.type("globus-compute-endpoint whoami")
    terminal.type(
        f". {clients.program('psik', 'activate')}\n"
        "export PYTHONPATH=$(python -c \"import sysconfig; print(sysconfig.get_path('purelib'))\")\n"
        "globus-compute-endpoint start psik_endpoint --detach"
    )
    (line,) = until(
        lambda: re.findall(rf"psik_endpoint\W+running\W+({UUID})", terminal.type("globus-compute-endpoint list")),
        "the endpoint to run",
    )
    yield line
    terminal.type("globus-compute-endpoint stop psik_endpoint")


def multi_user_endpoint(folder: Path, hub: HubProcess, node: SlurmNode, account: LocalAccount) -> Iterator[str]:
    """As a site that offers psik sets it up."""
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    template = yaml.safe_dump({"engine": yaml.safe_load(ENDPOINT)["engine"]})
    config = {"public": True}
    site = ManagerProcess(folder / "psik", hub, "admin", mapping=mapping, template=template, config=config, name="psik")
    site.configure()
    variables = {**node.environment, "PYTHONPATH": str(clients.packages("psik"))}
    (site.profile / "user_environment.yaml").write_text(yaml.safe_dump(variables))
    site.start()
    yield site.endpoint_id
    site.stop()


@pytest.fixture
def psik(hub: HubProcess, endpoint: str, account: LocalAccount, tmp_path: Path) -> Callable[..., str]:
    """psik of a user elsewhere; what it prints."""
    remote = {"type": "slurm", "queue_name": "debug"}
    backend = {
        "type": "globus",
        "queue_name": endpoint,
        "project_name": str(account.home / "psik_jobs"),
        "attributes": remote,
    }
    config = tmp_path / "psik.json"
    config.write_text(json.dumps({"prefix": str(tmp_path / "jobs"), "backends": {"site": backend}}))
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PSIK_CONFIG": str(config)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [clients.program("psik", "psik"), *arguments],
            env=environment | hub.client_environment("alice"),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def submitted(psik: Callable[..., str], folder: Path, then: str) -> str:
    """A job that psik has submitted."""
    path = folder / "job.yaml"
    path.write_text(JOB.format(then=then))
    said = psik("run", str(path))
    (stamp,) = re.findall(r"^Queued ([0-9.]+)$", said, re.MULTILINE)
    return str(stamp)


def test_a_job_is_submitted_and_polled(
    psik: Callable[..., str], account: LocalAccount, node: SlurmNode, tmp_path: Path
) -> None:
    stamp = submitted(psik, tmp_path, "echo result >result.txt")
    until(lambda: "completed" in psik("poll", stamp), "the job to end", 120)
    job = tmp_path / "jobs" / stamp
    assert (job / "work" / "result.txt").read_text() == "result\n"
    (said,) = [path.read_text() for path in job.rglob("stdout.1")]
    assert f"srun as {ACCOUNT} in job " in said
    remote = account.home / "psik_jobs" / stamp
    assert remote.stat().st_uid == account.uid


def test_a_job_is_cancelled(psik: Callable[..., str], node: SlurmNode, tmp_path: Path) -> None:
    stamp = submitted(psik, tmp_path, "sleep 600")
    until(lambda: [each.state for each in node.jobs() if each.user == ACCOUNT] == ["R"], "the job to run", 60)
    psik("cancel", stamp)
    until(lambda: not node.jobs(), "the job to be cancelled", 60)
    assert "canceled" in psik("status", stamp)
