"""ProcessPoolEngine: what happens to tasks when workers, or the program that they come from, die or stand still."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from globus_compute_sdk import ShellFunction

from lab.process import signal_ours
from lab.waiting import until
from tests.uep import functions
from tests.uep.task_requests import PROCESS_POOL, StartEngine, run, task_request, value
from uep.engines import pool_worker
from uep.engines.base import Engine
from wire import messages

pytestmark = pytest.mark.system


def test_dead_pool_worker_fails_its_task_only(start: StartEngine) -> None:
    engine = start(PROCESS_POOL)
    other = engine.submit(task_request(functions.sleep, 0.5))
    result = run(engine, task_request(functions.die))
    assert result.error_details is not None
    assert "worker process of the task died: ended with exit code 9" in result.data
    assert messages.unpack(other.result(5)).error_details is None  # type: ignore[union-attr]
    assert value(engine, functions.double, 1) == 2


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGSEGV, "signal 11 (SIGSEGV)"), (signal.SIGABRT, "signal 6 (SIGABRT)"), (34, "signal 34")],
)
def test_a_crash_names_the_signal(number: int, said: str, start: StartEngine) -> None:
    result = run(start(PROCESS_POOL), task_request(functions.kill_myself, int(number)))
    assert f"worker process of the task died: ended by {said}" in result.data
    assert "dill" not in result.data and "serial" not in result.data  # on which clients give advice on serializers


def test_dead_pool_worker_is_noticed_when_its_task_has_forked(start: StartEngine, tmp_path: Path) -> None:
    engine = start(PROCESS_POOL)
    result = run(engine, task_request(functions.leave_child_and_die, str(tmp_path / "child")))
    signal_ours(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert "worker process of the task died" in result.data


def test_tasks_in_pool_processes_may_have_processes(start: StartEngine) -> None:
    default = multiprocessing.get_all_start_methods()[0]
    assert value(start(PROCESS_POOL), functions.with_children) == (default, [1.0, 2.0])


def test_idle_pool_worker_may_die(start: StartEngine) -> None:
    engine = start({"type": "ProcessPoolEngine", "max_workers": 1})
    pid = value(engine, functions.whereabouts)["pid"]
    signal_ours(pid, signal.SIGKILL)
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
    signal_ours(first, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(first), "the first worker to end", 60)
    assert "Resource temporarily unavailable" in run(engine, task_request(functions.double, 1)).data
    monkeypatch.undo()
    assert value(engine, functions.double, 1) == 2


def test_pool_worker_that_stands_still_holds_up_no_others(start: StartEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_worker, "STALL", 1.0)
    engine = start({"type": "ProcessPoolEngine", "max_workers": 1})
    pid = value(engine, functions.whereabouts)["pid"]
    signal_ours(pid, signal.SIGSTOP)
    large = engine.submit(task_request(functions.length, "x" * 5_000_000))  # more than its socket takes
    assert messages.unpack(large.result(30)).error_details is None  # type: ignore[union-attr]
    assert value(engine, functions.whereabouts)["pid"] != pid


def test_neither_the_loop_nor_the_others_wait_for_one(start: StartEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker stands still while it is given a large task: what is small goes to the other and comes back."""
    monkeypatch.setattr(pool_worker, "STALL", 3600.0)
    engine = start({"type": "ProcessPoolEngine", "max_workers": 2})
    until(lambda: len(pool_processes(engine).children()) == 1, "the first worker")
    stopped = pool_processes(engine).children()[0]
    stopped.suspend()
    stuck = engine.submit(task_request(functions.length, "x" * 5_000_000))
    assert [value(engine, functions.double, n) for n in range(3)] == [0, 2, 4]
    assert not stuck.done()
    stopped.resume()
    assert messages.unpack(stuck.result(30)).error_details is None  # type: ignore[union-attr]


def pool_processes(engine: Engine) -> psutil.Process:
    """The program that a pool's workers are forked from; they are its children, and it is its guard's."""
    guard = psutil.Process(engine._program._process.pid)  # type: ignore[attr-defined]
    (program,) = guard.children()
    return program


def test_retries_when_the_machinery_failed(start: StartEngine) -> None:
    engine = start({**PROCESS_POOL, "max_retries_on_system_failure": 2})
    result = run(engine, task_request(functions.die))
    assert [line[:10] for line in result.data.splitlines()] == ["Attempt 1:", "Attempt 2:", "Attempt 3:"]


def test_pool_worker_is_replaced_after_its_tasks(start: StartEngine) -> None:
    engine = start({"type": "ProcessPoolEngine", "max_workers": 1, "max_tasks_per_child": 2})
    pids = [value(engine, functions.whereabouts)["pid"] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_tasks_get_no_descriptors_of_the_endpoint(start: StartEngine) -> None:
    said = value(start(PROCESS_POOL), ShellFunction("ls /proc/self/fd | tr '\\n' ' '"))
    assert len(said.stdout.split()) <= 5, said.stdout
