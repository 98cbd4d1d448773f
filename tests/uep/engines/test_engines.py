from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from globus_compute_sdk import ShellFunction

from lab import peer
from tests.conftest import need
from tests.uep import functions
from tests.uep.task_requests import HTEX, StartEngine, run, serializer, task_request, value
from tests.waiting import until
from uep.config import ConfigError
from uep.engines import pool_worker
from uep.engines.base import Engine, EngineContext, TaskRequest
from uep.engines.registry import make_engine
from wire import messages

pytestmark = pytest.mark.system

SAMPLES = json.loads((Path(__file__).parents[1] / "heartbeat_keys.json").read_text())
ALL = [{"type": "ThreadPoolEngine", "max_workers": 2}, {"type": "ProcessPoolEngine", "max_workers": 2}, HTEX]


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_tasks(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    engine = start(mapping)
    assert value(engine, functions.double, 4) == 8
    assert "ValueError: no" in run(engine, task_request(functions.boom)).data
    assert "SystemExit" in run(engine, task_request(functions.leave)).data
    assert value(engine, functions.whereabouts)["cwd"] == str(tmp_path / "tasks_working_dir")
    said = value(engine, ShellFunction("echo hello {who}"), who="you")
    assert (said.returncode, said.stdout) == (0, "hello you\n")
    many = [engine.submit(task_request(functions.double, n)) for n in range(50)]
    assert all(messages.unpack(each.result(30)) for each in many)


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_figures_before_and_after_start(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    before = make_engine(mapping, EngineContext(str(uuid.uuid4()), tmp_path)).status()
    after = start(mapping).status()
    assert sorted(before) == sorted(after) == sorted(SAMPLES[mapping["type"]])
    json.dumps(after, allow_nan=False)


def test_figures_are_like_the_public_engines(start: StartEngine, tmp_path: Path) -> None:
    """The same names, and values of the same types: asked of the public package itself."""
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    script = [peer.program().parent / "python", "-I", Path(__file__).parent / "peer_figures.py", tmp_path]
    path = f"{peer.program().parent}:{os.environ['PATH']}"
    said = subprocess.run(script, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
    public = json.loads(said.stdout)
    for mapping in ALL:
        options: dict[str, Any] = {}
        if mapping is HTEX:
            options = {"provider": {**HTEX["provider"], "init_blocks": 0}, "prefetch_capacity": 0}  # type: ignore[dict-item]
        ours = start({**mapping, **options}).status()
        theirs = public[mapping["type"]]
        assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
        same = set(theirs) - {"total_mem"}
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_sandbox_and_working_dir(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    engine = start({**mapping, "run_in_sandbox": True, "working_dir": str(tmp_path / "elsewhere")})
    seen = value(engine, functions.whereabouts)
    assert seen["cwd"] == seen["sandbox"] == str(tmp_path / "elsewhere" / seen["task"])


@pytest.mark.filterwarnings("ignore:Exception ignored in.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_shell_function_in_its_sandbox_and_its_walltime(mapping: dict[str, Any], start: StartEngine) -> None:
    engine = start({**mapping, "run_in_sandbox": True})
    task = task_request(ShellFunction("pwd; touch here", stdout="out/said"))
    assert serializer.deserialize(run(engine, task).data).returncode == 0
    sandbox = Path(engine.context.directory, "tasks_working_dir", task.task_id)
    assert (sandbox / "out" / "said").read_text() == f"{sandbox}\n"
    assert (sandbox / "here").exists()
    said = value(engine, ShellFunction("echo begun; exec sleep 5", walltime=0.5))  # the SDK lets it run on
    assert (said.returncode, said.exception_name, said.stdout) == (124, "subprocess.TimeoutExpired", "begun\n")


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_result_serializers(mapping: dict[str, Any], start: StartEngine) -> None:
    task = replace(task_request(functions.double, 2), result_serializers=("globus_compute_sdk.serialize.JSONData",))
    assert run(start(mapping), task).data == "11\n4"


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_allowed_serializers(mapping: dict[str, Any], start: StartEngine) -> None:
    allowed = ["globus_compute_sdk.*Code", "globus_compute_sdk.serialize.JSONData"]
    refused = run(start({**mapping, "allowed_serializers": allowed}), task_request(functions.double, 2))
    assert refused.error_details is not None
    assert "DillDataBase64" in refused.data
    with pytest.raises(ConfigError, match=rf"{mapping['type']}.allowed_serializers: .*'no.such.Thing'"):
        start({**mapping, "allowed_serializers": ["globus_compute_sdk.*Code", "no.such.Thing"]})


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_traceback_shows_the_users_frames_only(mapping: dict[str, Any], start: StartEngine) -> None:
    said = run(start(mapping), task_request(functions.boom)).data
    files = re.findall(r'File "(.*?)"', said)
    assert said.startswith("Traceback (most recent call last):\n")
    assert len(files) == 2
    assert set(files) == {"<string>"}


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: m["type"])
def test_figures_count_tasks(mapping: dict[str, Any], start: StartEngine, tmp_path: Path) -> None:
    engine = start(mapping)
    workers = 1 if mapping is HTEX else 2
    go = tmp_path / "go"
    futures = [engine.submit(task_request(functions.wait_for, str(go))) for _ in range(5)]

    def waiting() -> tuple[int, int]:
        figures = engine.status()
        return figures["outstanding_tasks"], figures["pending_tasks"]

    until(lambda: waiting() == (5, 5 - workers), "the figures to count all", 60)
    go.touch()
    for future in futures:
        future.result(30)
    until(lambda: waiting() == (0, 0), "the figures to count none", 60)


def test_priorities_are_passed_on(start: StartEngine) -> None:
    """The one resource that the HighThroughputExecutor knows."""
    engine = start(HTEX)
    assert (
        run(engine, replace(task_request(functions.double, 1), resource_specification={"priority": 3})).error_details
        is None
    )
    refused = run(engine, replace(task_request(functions.double, 1), resource_specification={"num_nodes": 3}))
    assert "InvalidResourceSpecification" in refused.data
    assert "num_nodes" in refused.data


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"type": "ThreadPool"}, "unknown engine type 'ThreadPool', did you mean 'ThreadPoolEngine'"),
        ({"type": "Slurm"}, "known: GlobusComputeEngine, GlobusMPIEngine, ProcessPoolEngine, ThreadPoolEngine"),
        ({"type": "ThreadPoolEngine", "max_worker": 1}, "did you mean 'max_workers'"),
        ({"type": "ThreadPoolEngine", "max_workers": "4"}, "max_workers: expected a whole number, got '4'"),
        ({"type": "ProcessPoolEngine", "max_workers": 0}, "expected at least 1"),
        ({"type": "ProcessPoolEngine", "run_in_sandbox": 1}, "expected true or false"),
        ({"type": "GlobusComputeEngine", "provider": "LocalProvider"}, "provider: expected a mapping"),
    ],
)
def test_wrong_configuration(mapping: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        make_engine(mapping, EngineContext("x", tmp_path))


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


def test_resources_need_an_engine_that_has_them(start: StartEngine) -> None:
    engine = start(ALL[0])
    plain = task_request(functions.double, 1)
    result = run(engine, TaskRequest(plain.task_id, plain.body, {"num_nodes": 2}))
    assert result.error_details is not None
    assert "resource_specification is not supported on ThreadPoolEngine" in result.data


def test_dead_pool_worker_fails_its_task_only(start: StartEngine) -> None:
    engine = start(ALL[1])
    other = engine.submit(task_request(functions.sleep, 0.5))
    result = run(engine, task_request(functions.die))
    assert result.error_details is not None
    assert "worker process of the task died" in result.data
    assert messages.unpack(other.result(5)).error_details is None  # type: ignore[union-attr]
    assert value(engine, functions.double, 1) == 2


def test_dead_pool_worker_is_noticed_when_its_task_has_forked(start: StartEngine, tmp_path: Path) -> None:
    engine = start(ALL[1])
    result = run(engine, task_request(functions.leave_child_and_die, str(tmp_path / "child")))
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert "worker process of the task died" in result.data


def test_tasks_in_pool_processes_may_have_processes(start: StartEngine) -> None:
    default = multiprocessing.get_all_start_methods()[0]
    assert value(start(ALL[1]), functions.with_children) == (default, [1.0, 2.0])


def test_idle_pool_worker_may_die(start: StartEngine) -> None:
    engine = start({"type": "ProcessPoolEngine", "max_workers": 1})
    pid = value(engine, functions.whereabouts)["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid), "the worker to end")
    assert value(engine, functions.whereabouts)["pid"] != pid


def test_pool_workers_may_die_at_any_moment(start: StartEngine) -> None:
    """Each task is answered once, by its result or by an error; workers in use, idle, and just chosen die."""
    engine = start({"type": "ProcessPoolEngine", "max_workers": 2})
    enough = threading.Event()

    def kill() -> None:
        while not enough.wait(random.uniform(0, 0.02)):
            for worker in pool_processes(engine).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        futures = []
        for n in range(300):
            futures.append(engine.submit(task_request(functions.double, n)))
            time.sleep(random.uniform(0, 0.005))
        answers = [messages.unpack(future.result(60)) for future in futures]
    finally:
        enough.set()
        killer.join()
    assert all(isinstance(each, messages.Result) for each in answers)
    assert {"worker process of the task died" in a.data for a in answers if a.error_details} == {True}  # type: ignore[union-attr]
    # The worker that was killed last may die only now.
    until(lambda: run(engine, task_request(functions.double, 1)).error_details is None, "a task to succeed", 60)
    until(lambda: len(pool_processes(engine).children()) <= 2, "the dead to be reaped", 60)


def test_the_program_that_pool_workers_come_from_may_die(start: StartEngine) -> None:
    engine = start({"type": "ProcessPoolEngine", "max_workers": 2})
    running = engine.submit(task_request(functions.sleep, 60))
    assert value(engine, functions.double, 1) == 2
    program = pool_processes(engine)
    workers = program.children()
    program.kill()
    assert b"worker process of the task died" in running.result(30)
    psutil.wait_procs(workers)  # the idle one, while it is dying, might still be given the next task
    assert value(engine, functions.double, 1) == 2
    program = pool_processes(engine)
    workers = program.children()
    engine.stop()
    assert psutil.wait_procs([program, *workers], timeout=30)[1] == []


def test_pool_that_may_have_no_more_processes(start: StartEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks wait for the workers that there are; they fail when there are none."""
    engine = start({"type": "ProcessPoolEngine", "max_workers": 4})
    first = value(engine, functions.whereabouts)["pid"]

    def refuse() -> None:
        raise OSError("no worker process can be made: Resource temporarily unavailable")

    monkeypatch.setattr(engine._program, "fork", refuse)  # type: ignore[attr-defined]
    futures = [engine.submit(task_request(functions.sleep, 0.05)) for _ in range(20)]
    assert all(messages.unpack(each.result(30)).error_details is None for each in futures)  # type: ignore[union-attr]
    os.kill(first, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(first), "the first worker to end", 60)
    assert "Resource temporarily unavailable" in run(engine, task_request(functions.double, 1)).data
    monkeypatch.undo()
    assert value(engine, functions.double, 1) == 2


def test_pool_worker_that_stands_still_holds_up_no_others(start: StartEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_worker, "STALL", 1.0)
    engine = start({"type": "ProcessPoolEngine", "max_workers": 1})
    pid = value(engine, functions.whereabouts)["pid"]
    os.kill(pid, signal.SIGSTOP)
    large = engine.submit(task_request(functions.length, "x" * 5_000_000))  # more than its socket takes
    assert messages.unpack(large.result(30)).error_details is None  # type: ignore[union-attr]
    assert value(engine, functions.whereabouts)["pid"] != pid


def pool_processes(engine: Engine) -> psutil.Process:
    """The program that a pool's workers are forked from; they are its children."""
    return psutil.Process(engine._program._process.pid)  # type: ignore[attr-defined]


def test_retries_when_the_machinery_failed(start: StartEngine) -> None:
    engine = start({**ALL[1], "max_retries_on_system_failure": 2})
    result = run(engine, task_request(functions.die))
    assert [line[:10] for line in result.data.splitlines()] == ["Attempt 1:", "Attempt 2:", "Attempt 3:"]


def test_pool_worker_is_replaced_after_its_tasks(start: StartEngine) -> None:
    engine = start({"type": "ProcessPoolEngine", "max_workers": 1, "max_tasks_per_child": 2})
    pids = [value(engine, functions.whereabouts)["pid"] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_tasks_get_no_descriptors_of_the_endpoint(start: StartEngine) -> None:
    said = value(start(ALL[1]), ShellFunction("ls /proc/self/fd | tr '\\n' ' '"))
    assert len(said.stdout.split()) <= 5, said.stdout


def test_htex_lost_worker(start: StartEngine) -> None:
    engine = start({**HTEX, "heartbeat_period": 1})
    result = run(engine, task_request(functions.die))
    assert result.error_details is not None
    assert "WorkerLost" in result.data
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
