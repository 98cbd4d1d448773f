"""From check-in to idleness: the real program, handed over as the manager does, against a real broker."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from globus_compute_sdk import ShellFunction

from lab.waiting import until
from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep
from tests.uep.service import Service
from wire.stop_request import KNOWS

pytestmark = pytest.mark.system

KEYS = json.loads((Path(__file__).parents[1] / "heartbeat_keys.json").read_text())
ENGINES = [THREADS, PROCESSES, HTEX]


def names(config: str) -> str:
    return config.split("type: ")[1].split("\n")[0].split(",")[0]


@pytest.mark.parametrize("config", ENGINES, ids=names)
def test_from_check_in_to_the_last_heartbeat(config: str, start_uep: StartUep, service: Service) -> None:
    uep = start_uep(config)
    uep.wait_ready()
    first = service.heartbeat()
    assert service.call(functions.double, 4) == 8
    service.send(functions.boom)
    failed = service.result()
    assert failed.error_details is not None
    assert failed.error_details.code == "RemoteExecutionError"
    assert "ValueError: no" in failed.data
    shell = ShellFunction("echo $HOME; exit 3")
    assert service.call(shell).returncode == 3
    assert uep.stop() == 0
    last = service.heartbeat_where(lambda beat: not beat["active"])
    expected = set(KEYS[names(config)]) | set(KEYS["endpoint"]) - {"globus_candidate_identities"}
    expected.add(KNOWS)  # which only ours says
    assert set(first) == set(last) == expected
    assert (first["active"], first["config_raw"], first["heartbeat_period"]) == (True, config, 0.5)
    assert first["posix_pid"] == uep.process.pid
    uep.wait_alone()
    assert str(urlsplit(service.url).password) not in uep.log.read_text()


def test_a_revived_one_does_not_idle_out_before_it_is_ready(start_uep: StartUep, service: Service) -> None:
    config = (
        "endpoint_setup: sleep 3\nheartbeat_period: 0.2\nidle_heartbeats_soft: 5\nengine: {type: ThreadPoolEngine}\n"
    )
    start_uep(config, revived=True)
    assert service.call(functions.double, 4) == 8


def test_nothing_heavy_is_imported_before_check_in(start_uep: StartUep, service: Service) -> None:
    uep = start_uep(HTEX, interpreter=("-X", "importtime"))
    assert service.call(functions.double, 1) == 2
    before, _, after = uep.log.read_text().partition("checked in")
    heavy = ("parsl", "globus_compute_sdk", "globus_sdk", "pydantic", "cryptography", "multiprocessing", "requests")
    assert [name for name in heavy if imported(name, before)] == []
    assert imported("uep.endpoint", before)
    assert imported("parsl.providers", after)


def imported(module: str, log: str) -> bool:
    return re.search(rf"^import time:.*\| +{module}$", log, re.MULTILINE) is not None


def test_workers_are_there_before_the_first_task(start_uep: StartUep, service: Service) -> None:
    start_uep(HTEX)
    service.heartbeat_where(lambda beat: beat["idle_workers"] == 1, timeout=60)
    pool = start_uep(PROCESSES, name="uep.pool")
    pool.log_says("ProcessPoolEngine started")
    assert len(pool.descendants()) == 2  # the program that workers are forked from, and one of them


def test_many_tasks(start_uep: StartUep, service: Service) -> None:
    start_uep(PROCESSES)
    buffers = {n: service.pack(functions.double, n) for n in range(1200)}
    tasks = {service.send_buffer(buffer): n for n, buffer in buffers.items()}
    results = service.results(len(tasks))
    assert {task: service.value(results[task]) for task in tasks} == {task: 2 * n for task, n in tasks.items()}


def test_what_a_task_sees(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    seen = service.call(functions.whereabouts)
    assert seen["cwd"] == str(uep.directory / "tasks_working_dir")
    assert seen["stdin"] == "/dev/null"
    service.call(functions.say, "printed by a task")
    uep.log_says("printed by a task\n")
    left_open = service.call(ShellFunction("ls /proc/self/fd | tr '\\n' ' '")).stdout
    assert left_open.split() == ["0", "1", "2", "3"], left_open  # 3 is the listing itself


def test_heartbeats_go_on(start_uep: StartUep, service: Service) -> None:
    start_uep(THREADS.replace("0.5", "0.2"))
    service.heartbeat()
    began = time.monotonic()
    for _ in range(5):
        assert service.heartbeat()["active"]
    assert time.monotonic() - began > 0.8


def test_heartbeats_go_on_while_the_disk_is_slow_at_the_start(
    start_uep: StartUep, service: Service, tmp_path: Path
) -> None:
    """A pipe in the place of the journal: whoever reads it waits until somebody writes."""
    directory = tmp_path / ".globus_compute" / "uep.test"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "open_tasks")
    start_uep()
    for _ in range(4):
        assert service.heartbeat()["active"]
    (directory / "open_tasks").write_text("")
    assert service.call(functions.double, 21) == 42


def test_stops_when_idle_after_its_work(start_uep: StartUep, service: Service) -> None:
    uep = start_uep("heartbeat_period: 0.2\nidle_heartbeats_soft: 4\n" + THREADS.split("\n", 1)[1])
    service.send(functions.sleep, 1.5)  # longer than the limit: not idle while it runs
    assert service.value(service.result()) == 1.5
    assert uep.process.wait(5) == 0
    assert "idle_heartbeats_soft" in uep.log.read_text()
    assert service.heartbeat_where(lambda beat: not beat["active"])


def test_stops_when_no_task_ever_comes(start_uep: StartUep) -> None:
    limits = "heartbeat_period: 0.1\nidle_heartbeats_soft: 2\nidle_heartbeats_hard: 9\n"
    uep = start_uep(limits + THREADS.split("\n", 1)[1])
    title = Path(f"/proc/{uep.process.pid}/cmdline")
    until(lambda: title.read_bytes().startswith(b"[idle; shut down in "), "the end to be announced")
    assert uep.process.poll() is None
    assert uep.process.wait(5) == 0
    assert "idle_heartbeats_hard" in uep.log.read_text()


def test_messages_that_are_no_tasks(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    service.channel.basic_publish("tasks", service.task_queue, b"rubbish")
    uep.log_says("without a task id thrown away")
    bad = service.send_buffer(service.pack(functions.double, 1), resource_specification="[")
    result = service.result()
    assert result.task_id == bad
    assert "Failed to start task" in result.data
    assert service.call(functions.double, 1) == 2


def test_task_delivered_twice_runs_once(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    start_uep()
    mark, task = tmp_path / "ran", str(uuid.uuid4())
    buffer = service.pack(functions.touch_and_sleep, str(mark), 0.5)
    for _ in range(3):
        service.send_buffer(buffer, task)
    assert service.result().task_id == task
    assert service.call(functions.double, 1) == 2
    assert mark.read_text() == "ran\n"


def test_setup_teardown_and_paths(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    config = f"""
paths: {{endpoint_dir: "$HOME/d", endpoint_log: "$HOME/d/my.log"}}
debug: true
endpoint_setup: touch {tmp_path}/setup
endpoint_teardown: touch {tmp_path}/teardown
"""
    uep = start_uep(config + THREADS)
    assert service.call(functions.whereabouts)["cwd"] == f"{tmp_path}/d/tasks_working_dir"
    assert uep.stop() == 0
    assert (tmp_path / "setup").exists()
    assert (tmp_path / "teardown").exists()
    log = (tmp_path / "d" / "my.log").read_text()
    assert "checked in" in log
    assert f"\n  | endpoint_setup: touch {tmp_path}/setup\n" in log, "with `debug: true` the configuration is logged"


@pytest.mark.parametrize("config", ENGINES, ids=names)
def test_python_files_in_the_home_are_not_ours(
    config: str, start_uep: StartUep, service: Service, tmp_path: Path
) -> None:
    for name in ("random.py", "signal.py", "queue.py", "uep.py", "parsl.py", "multiprocessing.py"):
        (tmp_path / name).write_text("raise SystemExit('imported by mistake')")
    start_uep(config)
    assert service.call(functions.double, 1) == 2


def test_audit_of_a_high_assurance_endpoint(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    records = os.open(tmp_path / "audit", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        start_uep("high_assurance: true\n" + THREADS, audit_fd=5, also=(records, 5))
        task, function = str(uuid.uuid4()), str(uuid.uuid4())
        service.send_buffer(service.pack(functions.double, 1), task, function_uuid=function)
        service.result()
    finally:
        os.close(records)
    expected = "".join(f"fid={function} tid={task} bid= {action}" for action in ("RECEIVED", "EXEC_START", "EXEC_END"))
    assert (tmp_path / "audit").read_text() == expected


def test_audit_of_tasks_in_blocks(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    """When a task is on a node the records say so, and in which block and batch job."""
    records = os.open(tmp_path / "audit", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    task, function, go_on = str(uuid.uuid4()), str(uuid.uuid4()), tmp_path / "go-on"
    said = re.compile(f"fid={function} tid={task} bid=([^ ]*) (jid=[^ ]+ )?([A-Z_]+)")

    def told() -> list[tuple[str, str, str]]:
        return said.findall((tmp_path / "audit").read_text().replace("fid=", "\nfid="))

    try:
        uep = start_uep("high_assurance: true\n" + HTEX, audit_fd=5, also=(records, 5))
        service.send_buffer(service.pack(functions.wait_for, str(go_on)), task, function_uuid=function)
        until(lambda: len(told()) == 3, "the task to run", 60)
        go_on.touch()
        assert service.result(60).error_details is None
        uep.stop()
    finally:
        os.close(records)
    (_, _, received), (_, _, begun), (block, job, running), ended = told()
    assert (received, begun, running) == ("RECEIVED", "EXEC_START", "RUNNING")
    assert (block, ended) == ("0", ("0", job, "EXEC_END"))
    assert job.startswith("jid=")
