"""GlobusComputeEngine and GlobusMPIEngine on this machine: options, blocks, interchange and workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from globus_compute_sdk import ShellFunction

from lab.waiting import until
from tests.uep import functions
from tests.uep.task_requests import HTEX, StartEngine, run, serializer, task_request, value
from uep.config import ConfigError
from uep.engines.base import EngineContext, TaskRequest
from uep.engines.registry import make_engine
from uep.workers.parsl_program import LOG

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_workers": 1}, "unknown option 'max_workers', did you mean 'max_workers_per_node'"),
        ({"max_workers_per_node": "four"}, "max_workers_per_node: expected a whole number, got .four."),
        ({"provider": {"type": "Local"}}, "unknown provider type 'Local', did you mean 'LocalProvider'"),
        ({"provider": {"type": "LocalProvider", "max_block": 1}}, "LocalProvider: unknown option 'max_block'"),
        ({"provider": {"type": "LocalProvider", "launcher": {"type": "Srun"}}}, "launcher type"),
        ({"provider": {"max_blocks": 1}}, "provider: expected a mapping with a 'type'"),
        ({"address": {"type": "address_by_magic"}}, "address type"),
        ({"strategy": "clever"}, "strategy: 'clever' is not one of none, simple"),
        ({"job_status_kwargs": {"period": 1}}, "job_status_kwargs: unknown option 'period'"),
        ({"container_type": "jail"}, "container_type: 'jail' is not one of docker"),
        ({"container_type": "docker"}, "container_uri: needed"),
    ],
)
def test_wrong_htex_options(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    engine = make_engine({**HTEX, **options}, EngineContext("x", tmp_path))
    try:
        with pytest.raises(ConfigError, match=says):
            engine.start()
    finally:
        engine.stop()


def test_parsls_logs_are_bounded(start: StartEngine, tmp_path: Path) -> None:
    """Each file, and the folders of pools that have ended."""
    logs = tmp_path / "GlobusComputeEngine-HighThroughputExecutor"
    for number in range(25):
        pool = logs / f"block-{number % 2}" / f"pool{number:02d}"
        pool.mkdir(parents=True)
        (pool / "manager.log").write_text("old\n")
        os.utime(pool, (number, number))
    (logs / "interchange.log").write_bytes(b"x" * LOG)
    engine = start(HTEX)
    value(engine, functions.log_much_as_parsl, 4)
    assert value(engine, functions.double, 1) == 2
    (ours,) = logs.glob("block-0/*/worker_0.log")
    sizes = {path.name: path.stat().st_size for path in ours.parent.iterdir()}
    assert sizes.keys() == {"manager.log", "worker_0.log", "worker_0.log.1"} and max(sizes.values()) <= LOG
    assert (logs / "interchange.log").stat().st_size < LOG
    assert (logs / "interchange.log.1").read_bytes() == b"x" * LOG
    kept = sorted(path.parent.name for path in logs.glob("block-*/*/manager.log") if path.parent != ours.parent)
    assert kept == [f"pool{number}" for number in range(15, 25)]


def test_logs_of_pools_in_a_folder_of_the_sites_are_left(start: StartEngine, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    pools = [root / "GlobusComputeEngine-HighThroughputExecutor" / "block-0" / str(number) for number in range(20)]
    for pool in pools:
        pool.mkdir(parents=True)
    engine = start({**HTEX, "worker_logdir_root": str(root)})
    assert value(engine, functions.double, 1) == 2
    assert all(pool.exists() for pool in pools)


def test_htex_lost_worker(start: StartEngine) -> None:
    engine = start({**HTEX, "heartbeat_period": 1})
    result = run(engine, task_request(functions.die))
    assert result.error_details is not None
    assert result.data.startswith("WorkerLost: Task failure due to loss of worker 0 on host ")
    assert result.data.endswith(": its process ended with exit code 9")
    result = run(engine, task_request(functions.kill_myself, int(signal.SIGSEGV)))
    assert ": its process ended by signal 11 (SIGSEGV)" in result.data
    assert value(engine, functions.double, 1) == 2


def test_htex_broken_blocks_end_the_engine(start: StartEngine) -> None:
    provider = {**HTEX["provider"], "worker_init": "exit 7"}  # type: ignore[dict-item]
    engine = start({**HTEX, "provider": provider, "job_status_kwargs": {"strategy_period": 0.1}})
    result = run(engine, task_request(functions.double, 1))
    assert result.error_details is not None
    assert "EXIT CODE: 7" in result.data
    assert engine.failure is not None


def test_htex_without_interchange_is_broken(start: StartEngine) -> None:
    engine = start(HTEX)
    assert value(engine, functions.double, 1) == 2
    waiting = engine.submit(task_request(functions.sleep, 60))
    engine._executor.interchange_proc.kill()  # type: ignore[attr-defined]
    assert b"interchange" in waiting.result(5)
    assert engine.failure is not None


def test_htex_workers_in_the_environment_of_worker_init(start: StartEngine, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python3").write_text(f'#!/bin/sh\nexport SEEN=venv\nexec {sys.executable} "$@"\n')
    (environment / "bin" / "python3").chmod(0o755)
    provider = {**HTEX["provider"], "worker_init": f"export VIRTUAL_ENV={environment}"}  # type: ignore[dict-item]
    engine = start({**HTEX, "provider": provider})
    assert value(engine, ShellFunction("echo $SEEN $PYTHONPATH")).stdout == "venv\n"  # nothing of ours in sight


def test_mpi_tasks_learn_their_nodes(start: StartEngine, tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("node1\n")
    provider = {
        "type": "LocalProvider",
        "launcher": {"type": "SimpleLauncher"},
        "worker_init": f"export PBS_NODEFILE={tmp_path}/nodes",
    }
    engine = start({"type": "GlobusMPIEngine", "mpi_launcher": "mpiexec", "provider": provider})
    plain = task_request(ShellFunction("echo $PARSL_MPI_PREFIX"))
    result = run(engine, TaskRequest(plain.task_id, plain.body, {"num_nodes": 1, "ranks_per_node": 2}))
    assert result.error_details is None, result.data
    assert "mpiexec" in serializer.deserialize(result.data).stdout
    refused = run(engine, TaskRequest(plain.task_id, plain.body, {"nodes": 1}))
    assert "InvalidResourceSpecification" in refused.data


def test_htex_scales_out_when_a_task_comes(start: StartEngine) -> None:
    provider = {**HTEX["provider"], "init_blocks": 0}  # type: ignore[dict-item]
    engine = start({**HTEX, "provider": provider, "job_status_kwargs": {"strategy_period": 60}})
    time.sleep(0.2)
    assert engine.status()["managers"] == 0
    assert value(engine, functions.double, 1) == 2


def test_htex_leaves_no_process(start: StartEngine, tmp_path: Path) -> None:
    engine = start(HTEX)
    assert value(engine, functions.double, 1) == 2
    engine.stop()
    left = ["pgrep", "-f", str(tmp_path)]
    until(lambda: not subprocess.run(left, capture_output=True).stdout, "all processes to end", 5)


@pytest.mark.parametrize("kind", ["GlobusComputeEngine", "GlobusMPIEngine"])
def test_at_a_high_assurance_endpoint_it_must_encrypt(kind: str, tmp_path: Path) -> None:
    """As the public package has it, which asks its engines (`assert_ha_compliant`)."""
    options = {"type": kind, **({"mpi_launcher": "mpiexec"} if kind == "GlobusMPIEngine" else {})}
    for encrypted in ({}, {"encrypted": True}):
        make_engine({**options, **encrypted}, EngineContext("x", tmp_path, high_assurance=True))
    make_engine({**options, "encrypted": False}, EngineContext("x", tmp_path))
    with pytest.raises(ConfigError, match="leave out `encrypted: false`"):
        make_engine({**options, "encrypted": False}, EngineContext("x", tmp_path, high_assurance=True))
