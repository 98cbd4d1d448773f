"""What tasks have started ends with their pool: asked first, then killed, however the pool ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import slurm
from lab.slurm import SlurmNode
from lab.waiting import until
from tests.conftest import need
from tests.uep import functions
from tests.uep.task_requests import HTEX, PROCESS_POOL, StartEngine, task_request
from uep.engines.base import Engine
from uep.workers import programs

pytestmark = pytest.mark.system

THREADS = {"type": "ThreadPoolEngine"}
SLURM = {
    **HTEX,
    "address": "127.0.0.1",
    "provider": {"type": "SlurmProvider", "exclusive": False, "cores_per_node": 1},
}
IN_PROCESSES = pytest.mark.parametrize("mapping", [PROCESS_POOL, HTEX], ids=lambda mapping: mapping["type"])
PROGRAMS = {"plain", "session", "bare", "daemon"}
PATIENCE = 60


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[SlurmNode]:
    need(slurm.obstacle() is None, slurm.obstacle() or "")
    with SlurmNode(folder / "slurm-programs") as running:
        yield running


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where programs of tasks note that they run, and that they were asked to end."""
    path = tmp_path / "notes"
    path.mkdir()
    return path


def started(engine: Engine, notes: Path, *deaf: str) -> dict[str, int]:
    """Runs a task that never ends; by name the pids of its programs, once all run."""
    engine.submit(task_request(functions.start_programs, str(notes), *deaf))
    until(lambda: all((notes / name).exists() for name in PROGRAMS), "the programs to run", PATIENCE)
    return {name: int((notes / name).read_text()) for name in PROGRAMS}


def worker_of(pids: dict[str, int]) -> int:
    """The pid of the worker whose task has started the programs."""
    return psutil.Process(pids["plain"]).ppid()


def living(pids: dict[str, int]) -> list[str]:
    """Which programs live."""
    there = {process.pid for process in programs.all_processes()}
    return [name for name, pid in pids.items() if pid in there]


def were_asked(notes: Path) -> set[str]:
    return {path.stem for path in notes.glob("*.asked")}


@pytest.mark.parametrize("mapping", [THREADS, PROCESS_POOL, HTEX], ids=lambda mapping: mapping["type"])
def test_a_stop_asks_programs_before_it_kills(
    mapping: dict[str, Any], start: StartEngine, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When `stop` returns all has ended: the manager clears away what is left then."""
    monkeypatch.setenv("GLOBUS_COMPUTE_ENDPOINT_DIR", str(notes.parent))
    engine = start(mapping)
    pids = started(engine, notes, "session")
    engine.stop()
    assert living(pids) == []
    assert were_asked(notes) == PROGRAMS - {"session"}


@IN_PROCESSES
def test_programs_end_with_a_pool_that_is_killed(mapping: dict[str, Any], start: StartEngine, notes: Path) -> None:
    engine = start(mapping)
    pids = started(engine, notes)
    pids["worker"] = worker = worker_of(pids)
    os.kill(psutil.Process(worker).ppid(), signal.SIGKILL)
    until(lambda: not living(pids), "all to end", PATIENCE)
    assert were_asked(notes) == PROGRAMS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_programs_end_with_a_batch_job(
    number: signal.Signals, node: SlurmNode, monkeypatch: pytest.MonkeyPatch, start: StartEngine, notes: Path
) -> None:
    """However Slurm ends it, which finds processes by their parents only."""
    for name, text in node.environment.items():
        monkeypatch.setenv(name, text)
    engine = start(SLURM)
    pids = started(engine, notes)
    pids["worker"] = worker_of(pids)
    how = [] if number == signal.SIGTERM else ["--full", "--signal=KILL"]
    subprocess.run(["scancel", *how, *(job.id for job in node.jobs())], check=True)
    until(lambda: not living(pids), "all to end", PATIENCE)
    assert number == signal.SIGKILL or were_asked(notes) == PROGRAMS


@pytest.mark.parametrize("generation", ["guard", "pool"])
def test_a_launcher_may_ask_either(generation: str, start: StartEngine, notes: Path) -> None:
    engine = start(HTEX)
    pids = started(engine, notes)
    pool = psutil.Process(worker_of(pids)).parent()
    assert pool is not None
    os.kill(pool.pid if generation == "pool" else pool.ppid(), signal.SIGTERM)
    until(lambda: not living({**pids, "pool": pool.pid}), "all to end", PATIENCE)
    assert were_asked(notes) == PROGRAMS


@IN_PROCESSES
def test_programs_of_another_pool_live_on(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    first, other = start(mapping), start({**mapping, "label": "other"})
    for name in ("first", "other"):
        (tmp_path / name).mkdir()
    pids, theirs = started(first, tmp_path / "first"), started(other, tmp_path / "other")
    os.kill(psutil.Process(worker_of(pids)).ppid(), signal.SIGKILL)
    until(lambda: not living(pids), "all of the one pool to end", PATIENCE)
    assert living(theirs) == list(theirs)
