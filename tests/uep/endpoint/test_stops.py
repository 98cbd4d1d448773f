"""What ends an endpoint, and what its successor finds."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import psutil
import pytest

from lab.process import signal_ours
from lab.waiting import until
from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep
from tests.uep.service import Service
from uep.storage.journal import Journal
from uep.storage.result_store import ResultStore
from wire import messages

pytestmark = pytest.mark.system


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_signals_give_running_tasks_a_grace(number: signal.Signals, start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    quick, endless = service.send(functions.sleep, 1), service.send(functions.sleep, 300)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 2)
    assert uep.stop(number) == 0
    results = service.results(2)
    assert service.value(results[quick]) == 1
    assert "endpoint stopped before this task was finished" in results[endless].data
    assert results[endless].error_details is not None


def test_a_signal_during_setup_ends_the_setup_and_starts_no_engine(
    start_uep: StartUep, service: Service, tmp_path: Path
) -> None:
    mark = tmp_path / "setup"
    uep = start_uep(f"endpoint_setup: touch {mark}; sleep 3600; true\n{PROCESSES}")
    until(mark.exists, "the setup to run")
    assert uep.stop() == 0
    uep.wait_alone()
    assert service.heartbeat_where(lambda beat: not beat.get("active", True))
    assert "ProcessPoolEngine started" not in uep.log.read_text()


def test_a_dead_engine_leaves_what_comes_to_the_successor(start_uep: StartUep, service: Service) -> None:
    """Also with seconds to the next heartbeat: the endpoint ends at once, cleanly, and the new task runs elsewhere."""
    uep = start_uep(HTEX.replace("0.5", "30"))
    assert service.call(functions.double, 1) == 2
    (interchange,) = (pid for pid in uep.descendants() if b"interchange" in _command(pid))
    signal_ours(interchange, signal.SIGKILL)
    assert uep.process.wait(60) == 0
    late = service.send(functions.double, 2)
    start_uep(THREADS)
    result = service.result()
    assert (result.task_id, service.value(result)) == (late, 4)


def test_signals_to_the_whole_group_leave_tasks_their_grace(start_uep: StartUep, service: Service) -> None:
    """As from a terminal, or from systemd at the end of the host."""
    uep = start_uep(PROCESSES)
    assert service.call(functions.double, 1) == 2
    running = service.send(functions.sleep, 1.5)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    os.killpg(uep.process.pid, signal.SIGTERM)
    assert uep.process.wait(30) == 0
    assert service.value(service.results(1)[running]) == 1.5
    uep.wait_alone()


def test_tasks_that_come_while_stopping_are_for_the_successor(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    service.call(functions.double, 1)
    endless = service.send(functions.sleep, 300)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    uep.process.send_signal(signal.SIGTERM)
    uep.log_says("stopping")
    late = service.send(functions.double, 2)
    assert uep.process.wait(20) == 0
    assert service.result().task_id == endless
    assert service.waiting_tasks() == 1
    start_uep()
    assert service.result().task_id == late


def test_the_service_asks_it_to_stop(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    service.call(functions.double, 1)
    running = service.send(functions.sleep, 300)
    known = service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    assert known["stops_on_request"] is True
    service.ask_to_stop()
    assert uep.process.wait(30) == 0
    told = service.result()
    assert told.task_id == running and "Its user has asked for that" in told.data
    service.heartbeat_where(lambda beat: beat["active"] is False)
    assert service.waiting_tasks() == 0
    start_uep()
    assert service.call(functions.double, 2) == 4


@pytest.mark.parametrize("engine", [PROCESSES, HTEX], ids=["processes", "Parsl"])
def test_programs_of_a_killed_endpoint(engine: str, start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    uep = start_uep(engine)
    service.send(functions.start_programs, str(tmp_path))
    names = ("plain", "session", "bare", "daemon")
    until(lambda: all((tmp_path / name).exists() for name in names), "the programs to run", 60)
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: all((tmp_path / f"{name}.asked").exists() for name in names), "the programs to be asked to end", 60)


def test_successor_of_a_killed_endpoint(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    uep = start_uep(PROCESSES)
    mark = tmp_path / "ran"
    task = service.send(functions.touch_and_sleep, str(mark), 300)
    until(mark.exists, "the task to run")
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    uep.wait_alone()
    start_uep(PROCESSES)
    result = service.result()
    assert result.task_id == task
    assert result.error_details is not None
    assert "endpoint stopped" in result.data
    service.send_buffer(service.pack(functions.touch_and_sleep, str(mark), 0), task)  # the broker redelivers it
    assert service.call(functions.double, 1) == 2
    assert mark.read_text() == "ran\n"


def test_successor_after_a_crash_of_the_machine(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    """What the journal noted last may be lost: a task whose result is seen to be confirmed is not answered again."""
    directory = tmp_path / ".globus_compute" / "uep.test"
    directory.mkdir(parents=True)
    confirmed, kept, neither = (str(uuid.uuid4()) for _ in range(3))
    Journal(directory / "open_tasks").accept([confirmed, kept, neither])
    store = ResultStore(directory / "unacked_results")
    store.put([(task, messages.pack(messages.Result(task, "said"))) for task in (confirmed, kept)])
    store.discard([confirmed])
    uep = start_uep()
    got = service.results(2)
    assert got[kept].data == "said"
    assert "stopped before this task was finished" in got[neither].data
    assert service.call(functions.double, 1) == 2
    assert uep.stop() == 0
    assert Journal(directory / "open_tasks").leftover == frozenset()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_lives_on_without_its_parent_and_dies_whole(start_uep: StartUep, service: Service) -> None:
    uep = start_uep(HTEX)
    assert service.call(functions.double, 1) == 2
    os.kill(uep.process.pid, signal.SIGKILL)
    uep.process.wait()
    until(lambda: not any(b"interchange" in command for command in uep.commands()), "the interchange to end", 5)
    until(lambda: not _pools_of(uep.directory), "the pool to end", 60)


def _pools_of(directory: Path) -> list[str]:
    """The command lines of an endpoint's worker pools, which have sessions of their own."""
    commands = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    return [each for each in commands if str(directory) in each and "parsl_program.py process_worker_pool" in each]
