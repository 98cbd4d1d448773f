"""GlobusMPIEngine with a real mpiexec. The nodes of the batch job are names: all ranks are started on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from globus_compute_sdk import MPIFunction, ShellFunction

from lab import slurm
from lab.slurm import SlurmNode
from tests.conftest import need
from tests.uep.task_requests import StartEngine, engines_in, run, serializer, task_request
from uep.engines.base import Engine, TaskRequest
from wire import messages

# Parsl's functions that look for addresses leave their sockets to the garbage collector.
pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]

# A second: Hydra, MPICH's mpiexec, may die of SIGPIPE when its ranks end before it has started all of them.
RANKS = "sh -c 'sleep 1; echo rank $PMI_RANK of $PMI_SIZE'"


def mpi(command: str, cls: type[ShellFunction] = MPIFunction, **resources: Any) -> TaskRequest:
    return replace(task_request(cls(command)), resource_specification=resources)


def output(result: messages.Result) -> list[str]:
    assert result.error_details is None, result.data
    said = serializer.deserialize(result.data)
    assert said.returncode == 0, said
    return sorted(said.stdout.splitlines())


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With a batch job of three nodes, in which four tasks may run at once."""
    need(shutil.which("mpiexec") is not None, "needs mpiexec: lab/setup mpi")
    folder = tmp_path_factory.mktemp("mpi")
    (folder / "nodes").write_text("node1\nnode2\nnode3\n")
    provider = {
        "type": "LocalProvider",
        "launcher": {"type": "SimpleLauncher"},
        "worker_init": f"export PBS_NODEFILE={folder}/nodes HYDRA_LAUNCHER=fork",
    }
    with engines_in(folder) as start:
        yield start({"type": "GlobusMPIEngine", "max_workers_per_block": 4, "provider": provider})


@pytest.mark.parametrize(
    ("resources", "ranks"),
    [
        ({"num_nodes": 2, "ranks_per_node": 2}, 4),
        ({"num_nodes": 3, "num_ranks": 4}, 4),
        ({"num_nodes": 3}, 3),
        ({"num_nodes": 1, "ranks_per_node": 2, "launcher_options": "-l"}, 2),
    ],
)
def test_ranks(engine: Engine, resources: dict[str, Any], ranks: int) -> None:
    labels = [f"[{n}] " if "launcher_options" in resources else "" for n in range(ranks)]
    said = output(run(engine, mpi(RANKS, **resources)))
    assert said == [f"{labels[n]}rank {n} of {ranks}" for n in range(ranks)]


def test_what_a_task_learns_about_its_place(engine: Engine) -> None:
    learnt = mpi("echo $PARSL_MPI_PREFIX", ShellFunction, num_nodes=2, num_ranks=4)
    (prefix,) = output(run(engine, learnt))
    words = prefix.split()
    assert words[:5] == ["mpiexec", "-n", "4", "-ppn", "2"]
    assert set(words[words.index("-hosts") + 1].split(",")) <= {"node1", "node2", "node3"}


def test_more_tasks_than_nodes(engine: Engine) -> None:
    """Parsl's own scheduler loses results when several tasks wait."""
    futures = [engine.submit(mpi(RANKS, num_nodes=nodes)) for nodes in (3, 3, 3, 2, 1, 3, 2, 2, 3, 1)]
    done, waiting = wait(futures, timeout=120)
    assert not waiting
    for future in done:
        result = messages.unpack(future.result())
        assert isinstance(result, messages.Result)
        assert output(result)


def test_more_nodes_than_there_are(engine: Engine) -> None:
    result = run(engine, mpi(RANKS, num_nodes=4))
    assert result.error_details is not None
    assert "MPINodesUnavailable(requested=4 available=3)" in result.data
    assert len(output(run(engine, mpi(RANKS, num_nodes=3)))) == 3


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({}, "{'num_nodes'}. It must be a whole number, got None"),
        ({"ranks_per_node": 2}, "{'num_nodes'}. It must be a whole number, got None"),
        ({"num_nodes": "two"}, "{'num_nodes'}. It must be a whole number, got 'two'"),
        ({"num_nodes": 0}, "{'num_nodes'}. It must be a whole number, got 0"),
        ({"num_nodes": 1, "ranks_per_node": 1.5}, "{'ranks_per_node'}. It must be a whole number, got 1.5"),
        ({"num_nodes": 1, "nodes": 1}, "{'nodes'}"),
    ],
)
def test_wrong_resources_are_refused_at_once(engine: Engine, resources: dict[str, Any], says: str) -> None:
    result = run(engine, mpi(RANKS, **resources))
    assert result.error_details is not None
    assert result.data.startswith("parsl.executors.errors.InvalidResourceSpecification: ")
    assert says in result.data


def test_a_block_of_the_batch_system_is_never_asked_for_too_many(start: StartEngine) -> None:
    """Nothing is submitted for a task that no block can hold."""
    provider = {"type": "SlurmProvider", "nodes_per_block": 2, "init_blocks": 0, "launcher": {"type": "SimpleLauncher"}}
    engine = start({"type": "GlobusMPIEngine", "mpi_launcher": "srun", "provider": provider})
    assert "3 nodes, but a block has 2" in run(engine, mpi(RANKS, num_nodes=3)).data


def test_srun_in_a_job_of_slurm(start: StartEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(slurm.obstacle() is None, slurm.obstacle() or "")
    (folder / "slurm-mpi").mkdir()
    with SlurmNode(folder / "slurm-mpi") as node:
        for name, text in node.environment.items():
            monkeypatch.setenv(name, text)
        provider = {
            "type": "SlurmProvider",
            "exclusive": False,
            "scheduler_options": "#SBATCH --ntasks-per-node=3",
            "launcher": {"type": "SimpleLauncher"},
        }
        engine = start({"type": "GlobusMPIEngine", "mpi_launcher": "srun", "provider": provider})
        ranks = mpi("sh -c 'echo rank $SLURM_PROCID of $SLURM_NTASKS'", num_nodes=1, ranks_per_node=3)
        said = output(run(engine, ranks, 120))
        assert said == [f"rank {n} of 3" for n in range(3)]
        engine.stop()
