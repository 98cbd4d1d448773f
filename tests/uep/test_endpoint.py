"""The real program, handed over as the manager does, against a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from globus_compute_sdk import ShellFunction

from lab.broker import PrivateBroker
from lab.certificates import Authority
from lab.proxy import Proxy
from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep, kept_results
from tests.uep.service import Service
from tests.waiting import until
from uep import config, endpoint
from uep.engines.base import EngineContext
from uep.engines.registry import make_engine
from uep.handover import HandOver
from uep.storage.journal import Journal
from uep.storage.result_store import ResultStore
from wire import messages

pytestmark = pytest.mark.system

KEYS = json.loads((Path(__file__).parent / "heartbeat_keys.json").read_text())
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
    assert set(first) == set(last) == expected
    assert (first["active"], first["config_raw"], first["heartbeat_period"]) == (True, config, 0.5)
    assert first["posix_pid"] == uep.process.pid
    uep.wait_alone()
    assert str(urlsplit(service.url).password) not in uep.log.read_text()


def test_nothing_heavy_is_imported_before_check_in(start_uep: StartUep, service: Service) -> None:
    uep = start_uep(HTEX, environment={"PYTHONPROFILEIMPORTTIME": "1"})
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_give_running_tasks_a_grace(number: signal.Signals, start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    quick, endless = service.send(functions.sleep, 1), service.send(functions.sleep, 300)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 2)
    assert uep.stop(number) == 0
    results = service.results(2)
    assert service.value(results[quick]) == 1
    assert "endpoint stopped before this task was finished" in results[endless].data
    assert results[endless].error_details is not None


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


def test_broker_restart(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    uep = start_uep()
    assert service.call(functions.double, 1) == 2
    running = service.send(functions.sleep, 1.5)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    broker.stop()
    uep.log_says("next attempt")
    until(lambda: kept_results(uep.directory) == [running], "the result to be kept")
    broker.start()
    service.connect()
    assert service.value(service.result(30)) == 1.5
    assert service.call(functions.double, 2) == 4
    assert service.heartbeat()["active"]
    assert kept_results(uep.directory) == []


def test_results_without_broker_are_sent_by_the_successor(
    start_uep: StartUep, service: Service, broker: PrivateBroker
) -> None:
    uep = start_uep()
    task = service.send(functions.sleep, 1)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    broker.stop()
    until(lambda: kept_results(uep.directory) == [task], "the result to be kept")
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    broker.start()
    service.connect()
    start_uep()
    result = service.result(30)
    assert (result.task_id, service.value(result)) == (task, 1)


def test_refreshed_credentials(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    first, second = f"u{uuid.uuid4().hex[:8]}", f"u{uuid.uuid4().hex[:8]}"
    for user in (first, second):
        broker.ctl("add_user", user, "old")
        broker.ctl("set_permissions", user, ".*", ".*", ".*")
    url = f"amqp://{first}:old@127.0.0.1:{broker.port}/%2F"
    uep = start_uep(amqp_creds=service.credentials(url))
    assert service.call(functions.double, 1) == 2
    broker.ctl("change_password", first, "new")
    broker.ctl("close_all_connections", "--vhost", "/", "rotated")
    service.connect()
    uep.log_says("refuses this user and password")
    uep.refresh(service.credentials(url.replace(first, second)))
    assert service.call(functions.double, 2) == 4
    assert ":old@" not in uep.log.read_text()


def test_password_that_was_revoked_while_the_network_was_away(
    start_uep: StartUep, service: Service, broker: PrivateBroker
) -> None:
    """Each attempt reads the newest credentials; those that are refused are tried again, until there are others."""
    user = f"u{uuid.uuid4().hex[:8]}"
    broker.ctl("add_user", user, "old-word")
    broker.ctl("set_permissions", user, ".*", ".*", ".*")
    with Proxy(broker.port) as network:
        url = f"amqp://{user}:old-word@127.0.0.1:{network.port}/%2F"
        uep = start_uep(amqp_creds=service.credentials(url))
        task = service.send(functions.sleep, 4)
        uep.log_says("taking tasks")
        network.cut()
        uep.log_says("next attempt")
        broker.ctl("change_password", user, "new-word")
        network.resume()
        uep.log_says("refuses this user and password (expired credentials? the next start command refreshes them)")
        until(lambda: uep.log.read_text().count("refuses this user") > 2, "three refusals", 60)
        uep.refresh(service.credentials(url.replace("old-word", "new-word")))
        service.connect()
        result = service.result(60)
        assert (result.task_id, service.value(result)) == (task, 4)
        assert service.call(functions.double, 2) == 4
        assert "-word" not in uep.log.read_text()


def test_queues_that_are_deleted_and_come_back(start_uep: StartUep, service: Service) -> None:
    """Meanwhile results are kept, and the endpoint goes on trying."""
    uep = start_uep()
    assert service.call(functions.double, 1) == 2
    running = service.send(functions.sleep, 2)
    service.heartbeat_where(lambda beat: beat["outstanding_tasks"] == 1)
    for kind in ("tasks", "results"):
        service.channel.queue_delete(f"{service.endpoint_id}.{kind}")
    uep.log_says("the broker cancelled the consumer: its queue is gone")
    uep.log_says("no queue")
    uep.log_says("not taken by the broker, sent again in 30 s", 30)
    assert uep.process.poll() is None
    again = Service(service.url, service.endpoint_id)
    try:
        results = [again.result(60)]
        later = again.send(functions.double, 2)
        results.append(again.result(60))
    finally:
        again.close()
    assert {result.task_id: again.value(result) for result in results} == {running: 2, later: 4}


def test_broker_that_is_short_of_memory(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    """It confirms nothing, and says nothing. The endpoint still sees that it is idle, and the result is kept."""
    uep = start_uep(
        "heartbeat_period: 1.5\nidle_heartbeats_soft: 1\nidle_heartbeats_hard: 3\n" + THREADS.split("\n", 1)[1]
    )
    task = service.send(functions.sleep, 3)
    uep.log_says("taking tasks")
    broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        uep.log_says("heartbeat not confirmed within 5 s", 60)
        assert uep.process.wait(120) == 0
        assert "idle_heartbeats_hard" in uep.log.read_text()
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")
    service.connect()
    start_uep()
    result = service.result(60)
    assert (result.task_id, service.value(result)) == (task, 3)


def test_different_urls_for_each_queue(start_uep: StartUep, service: Service, broker: PrivateBroker) -> None:
    credentials = service.credentials()
    for kind in ("task", "result"):
        user = f"{kind}{uuid.uuid4().hex[:8]}"
        broker.ctl("add_user", user, "p")
        broker.ctl("set_permissions", user, ".*", ".*", ".*")
        info = credentials[f"{kind}_queue_info"]
        info["connection_url"] = f"amqp://{user}:p@127.0.0.1:{broker.port}/%2F"
    uep = start_uep(amqp_creds=credentials)
    assert service.call(functions.double, 1) == 2
    broker.ctl("close_all_connections", "--vhost", "/", "test")
    service.connect()
    assert service.call(functions.double, 2) == 4
    assert uep.stop() == 0


def test_over_tls(start_uep: StartUep, tmp_path: Path) -> None:
    """With an authority of the site's own, as user_environment.yaml names it, and without; `amqp_port` on all three."""
    authority = Authority("a site's CA")
    authority.write(tmp_path / "ca.pem")
    authority.issue("localhost").write(tmp_path / "broker.pem")
    with PrivateBroker(tmp_path / "broker", certificate=tmp_path / "broker.pem") as broker:
        service = Service(broker.url, str(uuid.uuid4()))
        nobody_there = broker.tls_url.replace(f":{broker.tls_port}/", ":1/")
        settings = f"amqp_port: {broker.tls_port}\n{THREADS}"
        distrustful = start_uep(settings, amqp_creds=service.credentials(nobody_there))
        distrustful.log_says("certificate is refused")
        assert distrustful.stop() == 0
        trust = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        uep = start_uep(settings, amqp_creds=service.credentials(nobody_there), environment=trust)
        assert service.call(functions.double, 1) == 2
        assert service.heartbeat()["active"]
        assert {c.raddr.port for c in psutil.Process(uep.process.pid).net_connections()} == {broker.tls_port}
        assert uep.stop() == 0
        service.close()
    assert str(urlsplit(broker.url).password) not in uep.log.read_text()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("idle_heartbeat_soft: 1\n" + THREADS, "did you mean 'idle_heartbeats_soft'"),
        ("engine: {type: ThreadPoolEngine, workers: 2}", "ThreadPoolEngine: unknown option 'workers'"),
        ("engine: [", "not YAML"),
        ("engine: {type: GlobusComputeEngine, provider: {type: LocalProvider, max_block: 1}}", "unknown option"),
        ("endpoint_setup: exit 4\n" + THREADS, "endpoint_setup failed with exit code 4"),
    ],
)
def test_configuration_that_cannot_be_used(config: str, says: str, start_uep: StartUep, service: Service) -> None:
    uep = start_uep(config)
    assert uep.process.wait(15) == 78
    notice = service.heartbeat_where(lambda beat: "error" in beat)
    assert says in notice["error"]
    assert notice["heartbeat_period"] == 3
    assert str(uep.directory) not in notice["error"]


def test_configuration_that_cannot_be_used_is_told_through_the_right_port(
    start_uep: StartUep, service: Service, broker: PrivateBroker
) -> None:
    elsewhere = service.credentials(broker.url.replace(f":{broker.port}/", ":1/"))
    uep = start_uep(f"amqp_port: {broker.port}\nno_such_key: 1\n{THREADS}", amqp_creds=elsewhere)
    assert uep.process.wait(15) == 78
    assert "no_such_key" in service.heartbeat_where(lambda beat: "error" in beat)["error"]


def test_directory_that_cannot_be_used(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    in_the_way = tmp_path / ".globus_compute" / "uep.test"
    in_the_way.mkdir(parents=True)
    (in_the_way / "unacked_results").touch()
    assert start_uep().process.wait(15) == 78
    assert "directory cannot be used" in service.heartbeat_where(lambda beat: "error" in beat)["error"]


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"not JSON"])
def test_unusable_handover(raw: bytes, start_uep: StartUep) -> None:
    uep = start_uep(raw=raw)
    assert uep.process.wait(10) == 78
    assert "hand-over cannot be used" in uep.log.read_text()


@pytest.mark.parametrize("name", ["../x", "", "a/b", "-x"])
def test_unsafe_name(name: str, start_uep: StartUep, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(exist_ok=True)
    assert start_uep(name=name).process.wait(10) == 64


def test_function_that_is_not_allowed(start_uep: StartUep, service: Service) -> None:
    allowed = str(uuid.uuid4())
    start_uep(allowed_functions=[allowed])
    buffer = service.pack(functions.double, 1)
    service.send_buffer(buffer)
    refused = service.result()
    assert refused.error_details is not None
    assert refused.error_details.code == "FUNCTION_NOT_ALLOWED"
    service.send_buffer(buffer, function_uuid=allowed)
    assert service.value(service.result()) == 2


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
paths: {{endpoint_dir: {tmp_path}/d, endpoint_log: {tmp_path}/d/my.log}}
endpoint_setup: touch {tmp_path}/setup
endpoint_teardown: touch {tmp_path}/teardown
"""
    uep = start_uep(config + THREADS)
    assert service.call(functions.whereabouts)["cwd"] == f"{tmp_path}/d/tasks_working_dir"
    assert uep.stop() == 0
    assert (tmp_path / "setup").exists()
    assert (tmp_path / "teardown").exists()
    assert "checked in" in (tmp_path / "d" / "my.log").read_text()


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


def test_told_to_stop_before_it_could_connect(start_uep: StartUep, service: Service) -> None:
    credentials = service.credentials("amqp://guest:secret-word@127.0.0.1:1/%2F")
    uep = start_uep(amqp_creds=credentials)
    uep.log_says("next attempt")
    assert uep.stop() == 0
    assert "secret-word" not in uep.log.read_text()


def test_gives_up_without_a_broker(
    start_uep: StartUep, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "START_PATIENCE", 0.5)
    creds = service.credentials("amqp://guest:guest@127.0.0.1:1/%2F")
    handed = HandOver(service.endpoint_id, creds, THREADS)
    settings = config.parse(THREADS)

    async def run() -> int:
        engine = make_engine(settings.engine, EngineContext(service.endpoint_id, tmp_path))
        return await endpoint.Endpoint("uep.test", handed, settings, engine).run()

    assert asyncio.run(run()) == 69


def test_lives_on_without_its_parent_and_dies_whole(start_uep: StartUep, service: Service) -> None:
    uep = start_uep(HTEX)
    assert service.call(functions.double, 1) == 2
    os.kill(uep.process.pid, signal.SIGKILL)
    uep.process.wait()
    until(lambda: not any(b"interchange" in command for command in uep.commands()), "the interchange to end", 5)
