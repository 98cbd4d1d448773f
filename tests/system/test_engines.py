"""What users see of engines and versions through the unmodified client: MPI, and a client of another Python."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.conftest import need

pytestmark = pytest.mark.system

OTHER = Path(os.environ.get("MEP_OTHER", "/opt/mep-dev/other")) / "bin" / "python"
TEMPLATE = """\
heartbeat_period: 0.5
idle_heartbeats_soft: 8
engine:
  type: {{ ENGINE }}
{%- if "MPI" in ENGINE %}
  provider:
    type: LocalProvider
    launcher: {type: SimpleLauncher}
    worker_init: |
      echo node1 >$HOME/nodes
      echo node2 >>$HOME/nodes
      export PBS_NODEFILE=$HOME/nodes HYDRA_LAUNCHER=fork
{%- endif %}
"""
MPI = """
import json, sys
from globus_compute_sdk import Executor, MPIFunction
ranks = MPIFunction("sh -c 'sleep 1; echo rank $PMI_RANK of $PMI_SIZE as $(id -un)'")
with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"ENGINE": "GlobusMPIEngine"}) as ex:
    ex.resource_specification = {"num_nodes": 2, "ranks_per_node": 2}
    said = ex.submit(ranks).result(timeout=60)
    print(json.dumps([said.returncode, sorted(said.stdout.splitlines())]))
    ex.resource_specification = {"num_nodes": 3, "ranks_per_node": 2}
    print(json.dumps(str(ex.submit(ranks).exception(timeout=60))))
"""
# As bytecode, which is how functions travel, then in all ways at once, and as text.
VERSIONS = """
import json, sys, warnings
from globus_compute_sdk import Executor
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, PureSourceTextInspect

def total(n):
    parts = [2 * k for k in range(n)]
    return sum(parts)

warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as said:
    with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"ENGINE": "ThreadPoolEngine"}) as ex:
        print(json.dumps(str(ex.submit(total, 5).exception(timeout=60))))
    for strategy in (AllCodeStrategies(), PureSourceTextInspect()):
        with Executor(endpoint_id=sys.argv[1], user_endpoint_config={"ENGINE": "ThreadPoolEngine"}) as ex:
            ex.serializer = ComputeSerializer(strategy_code=strategy)
            print(json.dumps(ex.submit(total, 5).result(timeout=60)))
print(json.dumps([str(each.message) for each in said]))
"""


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess) -> Iterator[ManagerProcess]:
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": "meptest_engines"}]
    config = {"public": True, "mu_child_ep_grace_period_s": 0}
    options: dict[str, Any] = {"template": TEMPLATE, "schema": {"type": "object"}, "config": config}
    with (
        LocalAccount("meptest_engines"),
        ManagerProcess(folder / "engines", hub, "admin", mapping=mapping, name="engines", **options) as running,
    ):
        yield running


def test_an_mpi_function(hub: HubProcess, site: ManagerProcess) -> None:
    need(shutil.which("mpiexec") is not None, "needs mpiexec: lab/setup mpi")
    (code, lines), error = run_script(hub, "alice", MPI, site.endpoint_id)
    assert code == 0
    assert lines == [f"rank {n} of 4 as meptest_engines" for n in range(4)]
    assert "MPINodesUnavailable(requested=3 available=2)" in error


def test_a_client_of_another_python(hub: HubProcess, site: ManagerProcess, tmp_path: Path) -> None:
    if not OTHER.exists():
        pytest.skip("needs a Python of another version: lab/setup other")
    script = tmp_path / "client.py"
    script.write_text(VERSIONS)
    done = subprocess.run(
        [OTHER, script, site.endpoint_id],
        env={"PATH": "/usr/bin:/bin", "HOME": str(hub.folder), **hub.client_environment("alice")},
        cwd=hub.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    error, *values, warnings = map(json.loads, done.stdout.splitlines())
    asked = [OTHER, "-c", "import platform; print(platform.python_version())"]
    theirs = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    assert f"the client that started the endpoint has Python {theirs} and globus-compute-sdk " in error
    assert f"the worker has Python {platform.python_version()} and globus-compute-sdk " in error
    assert values == [20, 20]
    assert any(
        f"SDK: Python {theirs}" in text and f"Workers: Python {sys.version.split()[0]}" in text for text in warnings
    )
