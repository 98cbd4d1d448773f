"""Nothing is lost, and nothing hangs, whatever dies: tasks sent and results received are counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import psutil
import pytest

from lab.broker import PrivateBroker
from lab.proxy import Proxy
from tests.uep import functions
from tests.uep.program import HTEX, PROCESSES, THREADS, StartUep, Uep, kept_results
from tests.uep.service import Service
from tests.waiting import until
from uep import config, endpoint, error_results
from uep.broker import courier, outbox
from uep.engines.base import EngineContext
from uep.engines.registry import make_engine
from uep.handover import HandOver
from uep.workers.serialization import RESULT_LIMIT
from wire import amqp, messages

pytestmark = pytest.mark.system

MANY = 300
STOPPED = "endpoint stopped before this task was finished"


def work(folder, n):
    """Leaves a mark for each time that it runs."""
    import os
    import time

    with open(f"{folder}/{n}", "a") as mark:
        mark.write(f"{os.getpid()}\n")
    time.sleep(0.01)
    return n


def work_for_a_while(folder, n):
    import time
    from decimal import Decimal

    with open(f"{folder}/{n}", "a") as mark:
        mark.write("ran\n")
    time.sleep(3)
    return Decimal(f"{n}.{'0' * 5000}")  # equal to n, and more than a page of the disk


def work_for_longer(folder, n):
    import time

    with open(f"{folder}/{n}", "a") as mark:
        mark.write("ran\n")
    time.sleep(8)
    return n


def work_long(folder, n):
    import os
    import time

    with open(f"{folder}/{n}", "a") as mark:
        mark.write(f"{os.getpid()}\n")
    time.sleep(300)


def fail_at_length(size):
    raise ValueError("begin " + "x" * size + " end")


def length_when_told(go, data):
    import os
    import time

    while not os.path.exists(go):
        time.sleep(0.05)
    return len(data)


class Tally:
    """Tasks sent, and all results that came for each."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.sent: dict[str, int] = {}
        self.got: dict[str, list[messages.Result]] = {}
        folder.mkdir()

    def send(self, count: int, function: Callable[..., Any] = work, through: Service | None = None) -> list[str]:
        """Sends tasks, and returns when the broker has them on its disk."""
        service = through or self.service
        if not service.channel._delivery_confirmation:
            service.channel.confirm_delivery()
        tasks = []
        for _ in range(count):
            number = len(self.sent)
            tasks.append(service.send_buffer(service.pack(function, str(self.folder), number)))
            self.sent[tasks[-1]] = number
        return tasks

    def receive(self, count: int, timeout: float = 60) -> None:
        """Waits until there are results of `count` tasks."""
        deadline = time.monotonic() + timeout
        while len(self.got) < count:
            self._add(self.service.result(max(0.1, deadline - time.monotonic())))

    def settle(self) -> None:
        """Waits for the results of all tasks, and whether more come than that."""
        self.receive(len(self.sent))
        self.receive_what_is_there(1)

    def receive_what_is_there(self, patience: float = 0.05) -> None:
        """Until nothing has come for so many seconds."""
        with contextlib.suppress(AssertionError):
            while True:
                self._add(self.service.result(patience))

    def errors(self) -> dict[str, str]:
        """The text of each error by task. What came for a task more than once must be the same."""
        assert self.got.keys() == self.sent.keys()
        for task_id, results in self.got.items():
            assert len({result.data for result in results}) == 1, [r.data for r in results]
            if results[0].error_details is None:
                assert self.service.value(results[0]) == self.sent[task_id]
        return {task_id: r[0].data for task_id, r in self.got.items() if r[0].error_details is not None}

    def runs(self) -> list[int]:
        """How often each task ran that ran at all."""
        return [len(mark.read_text().splitlines()) for mark in self.folder.iterdir()]

    def _add(self, result: messages.Result) -> None:
        self.got.setdefault(result.task_id, []).append(result)


@pytest.fixture
def tally(service: Service, tmp_path: Path) -> Tally:
    return Tally(service, tmp_path / "marks")


@pytest.fixture
def network(broker: PrivateBroker) -> Iterator[Proxy]:
    """Between the endpoint and the broker."""
    with Proxy(broker.port) as proxy:
        yield proxy


@pytest.fixture
def small_disk(root: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def through(network: Proxy, service: Service, broker: PrivateBroker) -> dict[str, Any]:
    """Credentials whose broker is on the other side of `network`."""
    return service.credentials(broker.url.replace(f":{broker.port}/", f":{network.port}/"))


@pytest.mark.parametrize("configuration", [THREADS, PROCESSES], ids=["threads", "processes"])
def test_endpoint_killed(configuration: str, start_uep: StartUep, tally: Tally) -> None:
    tally.send(MANY)
    for _ in range(3):
        uep = start_uep(configuration)
        tally.receive(len(tally.got) + 30)
        tally.send(MANY // 3)
        assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
        uep.wait_alone()
    uep = start_uep(configuration)
    tally.settle()
    errors = tally.errors()
    assert errors
    assert all(STOPPED in text for text in errors.values())
    assert max(tally.runs()) == 1
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_broker_killed(start_uep: StartUep, tally: Tally, broker: PrivateBroker) -> None:
    tally.send(MANY)
    uep = start_uep()
    for _ in range(2):
        tally.receive(len(tally.got) + 30)
        tally.service.close()
        broker.kill()
        uep.log_says("next attempt")
        broker.start()
        tally.service.connect()
        tally.send(MANY // 3)
    tally.settle()
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)


def test_connection_cut(start_uep: StartUep, tally: Tally, network: Proxy, broker: PrivateBroker) -> None:
    tally.send(MANY)
    uep = start_uep(amqp_creds=through(network, tally.service, broker))
    for _ in range(3):
        tally.receive(len(tally.got) + 30)
        network.cut()
        before = network.connections
        tally.send(MANY // 3)
        time.sleep(1.5)
        network.resume()
        until(lambda before=before: network.connections > before, "a new connection", 60)
    tally.settle()
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_connection_stalled(
    tally: Tally, network: Proxy, broker: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the missing heartbeats tell. The broker has to miss them too: until then the task queue is taken."""
    monkeypatch.setattr(amqp, "HEARTBEAT", 2)
    monkeypatch.setattr(amqp, "OPEN_TIMEOUT", 3)

    def play() -> None:
        tally.send(MANY)
        tally.receive(30)
        network.stall()
        before = network.connections
        tally.send(MANY // 3)
        time.sleep(10)
        network.resume()
        tally.settle()
        assert network.connections > before

    play_with_endpoint(play, tmp_path / "e", tally.service, through(network, tally.service, broker))
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)


def test_pool_worker_killed(start_uep: StartUep, tally: Tally) -> None:
    start_uep(PROCESSES)
    (long,) = tally.send(1, work_long)
    mark = tally.folder / "0"
    until(lambda: mark.exists() and mark.read_text().endswith("\n"), "the task to run", 60)
    tally.send(MANY)
    tally.receive(30)
    os.kill(int(mark.read_text()), signal.SIGKILL)
    tally.settle()
    errors = tally.errors()
    assert errors.keys() == {long}
    assert "worker process of the task died (killed" in errors[long]
    assert tally.runs() == [1] * len(tally.sent)


@pytest.fixture
def flow(tally: Tally, broker: PrivateBroker) -> Iterator[Callable[[], None]]:
    """Tasks that come all the time; calling it ends them."""
    sender = Service(broker.url, tally.service.endpoint_id)
    enough = threading.Event()

    def send() -> None:
        while not enough.is_set():
            tally.send(random.randrange(1, 20), through=sender)
            time.sleep(random.uniform(0, 0.3))

    def end() -> None:
        enough.set()
        sending.join()

    sending = threading.Thread(target=send)
    sending.start()
    yield end
    end()
    sender.close()


def lives(uep: Uep) -> int:
    """How many endpoints have taken tasks so far; they share a log."""
    return uep.log.read_text().count("taking tasks")


def test_told_to_stop_at_any_moment(start_uep: StartUep, tally: Tally, flow: Callable[[], None]) -> None:
    for n in range(12):
        uep = start_uep()
        if n % 3:  # else perhaps before it has checked in
            until(lambda n=n, uep=uep: lives(uep) > n - n // 3 - 1, "it to take tasks", 60)
        time.sleep(random.uniform(0, 0.4))
        assert uep.stop() in (0, -signal.SIGTERM)  # the latter: before it has a word to say
    start_uep()
    flow()
    tally.settle()
    assert tally.errors() == {}  # each is short enough for the grace
    assert tally.runs() == [1] * len(tally.sent)
    assert len(tally.got) == len(tally.sent) == sum(len(results) for results in tally.got.values())


def test_idle_in_the_moment_when_a_task_comes(start_uep: StartUep, tally: Tally) -> None:
    """Whoever goes idle has a successor at once, as from a manager that has got a start command with the task."""
    settings = "heartbeat_period: 0.1\nidle_heartbeats_soft: 1\nidle_heartbeats_hard: 20\n" + THREADS.split("\n", 1)[1]
    uep, ended = start_uep(settings), 0
    while ended < 12:
        (task,) = tally.send(1)
        deadline = time.monotonic() + 60
        while task not in tally.got:
            assert time.monotonic() < deadline, uep.log.read_text()
            if uep.process.poll() is not None:
                assert uep.process.returncode == 0
                uep, ended = start_uep(settings), ended + 1
            tally.receive_what_is_there()
        time.sleep(random.uniform(0, 0.25))
    tally.settle()
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)


def test_killed_at_any_moment(start_uep: StartUep, tally: Tally, flow: Callable[[], None]) -> None:
    """Twenty times. No task is run twice; what ran, and whose end nobody saw, is an error."""
    for _ in range(20):
        uep = start_uep()
        time.sleep(random.uniform(0.2, 1.2))
        assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    flow()
    uep = start_uep()
    tally.settle()
    errors = tally.errors()
    assert all(STOPPED in text for text in errors.values())
    assert max(tally.runs()) == 1
    unanswered = {tally.sent[task] for task in errors}
    assert {int(mark.name) for mark in tally.folder.iterdir()} >= set(tally.sent.values()) - unanswered
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_full_disk(start_uep: StartUep, tally: Tally, broker: PrivateBroker, small_disk: Path) -> None:
    filler = small_disk / "filler"
    uep = start_uep(f"paths: {{endpoint_dir: {small_disk}}}\n{THREADS}")
    tally.send(20)
    tally.receive(20)
    fill(filler)
    tally.send(MANY)
    tally.receive(len(tally.sent))
    uep.log_says("results cannot be stored (No space left on device): kept in memory only")
    running = tally.send(10, work_for_a_while)
    until(lambda: len(tally.runs()) == len(tally.sent), "all tasks to run", 60)
    broker.stop()
    uep.log_says("next attempt")
    broker.start()
    tally.service.connect()
    tally.receive(len(tally.sent))
    filler.unlink()
    last = tally.send(10)
    tally.settle()
    uep.log_says("storing the results")
    assert tally.errors() == {}
    assert {*running, *last} < tally.got.keys()
    assert tally.runs() == [1] * len(tally.sent)
    until(lambda: kept_results(small_disk) == [], "all results to be removed", 60)


def test_results_in_memory_are_stored_when_there_is_room(
    start_uep: StartUep, tally: Tally, broker: PrivateBroker, small_disk: Path
) -> None:
    uep = start_uep(f"paths: {{endpoint_dir: {small_disk}}}\n{THREADS}")
    tally.send(1)
    tally.receive(1)
    fill(small_disk / "filler")
    early = tally.send(2, work_for_a_while)
    late = tally.send(1, work_for_longer)
    until(lambda: len(tally.runs()) == 4, "four tasks to run", 60)
    broker.stop()
    uep.log_says("kept in memory only")
    (small_disk / "filler").unlink()
    uep.log_says("storing the results")
    until(lambda: {*early, *late} <= set(kept_results(small_disk)), "all results to be stored", 60)
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    broker.start()
    tally.service.connect()
    start_uep(f"paths: {{endpoint_dir: {small_disk}}}\n{THREADS}")
    tally.settle()
    assert {*early, *late} < tally.got.keys()
    assert tally.errors() == {}


def test_crowded_disk(service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that nobody takes: no more tasks are accepted than there may be results."""
    monkeypatch.setattr(outbox, "MOST_RESULTS", 20)
    monkeypatch.setattr(courier, "MOST_SENT", 3)
    monkeypatch.setattr(courier, "AGAIN", 0.2)
    results = f"{service.endpoint_id}.results"

    def play() -> None:
        service.channel.queue_unbind(results, "results", results)
        tally.send(20)
        until(lambda: len(kept_results(tmp_path / "e")) == 20, "twenty results to be kept", 60)
        tally.send(20)
        until(lambda: service.waiting_tasks() < 20, "tasks to come", 60)
        service.channel.queue_purge(f"{service.endpoint_id}.heartbeats")
        for _ in range(3):
            service.heartbeat()
        assert len(tally.runs()) == 20
        service.channel.queue_bind(results, "results", results)
        tally.settle()

    play_with_endpoint(play, tmp_path / "e", service, service.credentials())
    assert tally.errors() == {}
    assert tally.runs() == [1] * 40


@pytest.mark.parametrize("how", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["removed", "cut"])
def test_results_that_somebody_destroyed(
    service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(courier, "AGAIN", 0.2)
    results, stored = f"{service.endpoint_id}.results", tmp_path / "e" / "unacked_results"

    def play() -> None:
        service.channel.queue_unbind(results, "results", results)
        (task,) = tally.send(1)
        until(lambda: kept_results(tmp_path / "e") == [task], "the result to be kept", 60)
        (file,) = stored.iterdir()
        how(file)
        service.channel.queue_bind(results, "results", results)
        tally.settle()
        gone = {task: "The result of this task was removed from the endpoint's disk."}
        assert tally.errors() == ({} if how is Path.unlink else gone)  # an open file lives on

    play_with_endpoint(play, tmp_path / "e", service, service.credentials())


def test_slow_disk(service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is run when it is on record, a result sent when it is on disk; heartbeats never wait for that."""
    results = f"{service.endpoint_id}.results"
    real = os.fdatasync
    go_on = {"open_tasks": threading.Event(), "unacked_results": threading.Event()}

    def hang(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        assert next(event for name, event in go_on.items() if name in path.parts).wait(60)
        real(fd)

    def heartbeats() -> None:
        service.channel.queue_purge(f"{service.endpoint_id}.heartbeats")
        for _ in range(3):
            service.heartbeat()

    def play() -> None:
        tally.send(1)
        tally.settle()
        monkeypatch.setattr(os, "fdatasync", hang)
        tally.send(3)
        heartbeats()
        assert len(tally.runs()) == 1
        go_on["open_tasks"].set()
        until(lambda: len(tally.runs()) == 4, "four tasks to run", 60)
        heartbeats()
        assert service.channel.queue_declare(results, passive=True).method.message_count == 0
        go_on["unacked_results"].set()
        tally.settle()

    play_with_endpoint(play, tmp_path / "e", service, service.credentials())
    assert tally.errors() == {}


def test_not_idle_while_a_task_waits_for_the_disk(
    service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that has come is movement, also before it is on record."""
    real, go_on, waits = os.fdatasync, threading.Event(), threading.Event()

    def hang(fd: int) -> None:
        waits.set()
        assert go_on.wait(60)
        real(fd)

    def play() -> None:
        tally.send(1)
        until(lambda: len(tally.runs()) == 1, "a task to run", 60)
        monkeypatch.setattr(os, "fdatasync", hang)
        tally.send(1)
        assert waits.wait(30)
        service.channel.queue_purge(f"{service.endpoint_id}.heartbeats")
        for _ in range(6):
            assert service.heartbeat()["active"]
        go_on.set()
        tally.settle()

    settings = "heartbeat_period: 0.3\nidle_heartbeats_soft: 3\nidle_heartbeats_hard: 100\n" + THREADS.split("\n", 1)[1]
    play_with_endpoint(play, tmp_path / "e", service, service.credentials(), settings)
    assert tally.errors() == {}


def test_flood_of_tasks(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    service.call(functions.sleep, 0.01)
    process = psutil.Process(uep.process.pid)
    before = process.memory_info().rss
    body = messages.pack(messages.Task(str(uuid.uuid4()), service.pack(functions.sleep, 0.05)))
    for _ in range(100_000):
        properties = pika.BasicProperties(headers={"task_uuid": str(uuid.uuid4())})
        service.channel.basic_publish("tasks", service.task_queue, body, properties)
    until(lambda: service.waiting_tasks() > 50_000, "the flood to wait", 60)
    most = 0
    for _ in range(30):
        most = max(most, process.memory_info().rss)
        time.sleep(0.1)
    assert service.waiting_tasks() > 50_000
    assert most - before < 150 << 20, f"{(most - before) >> 20} MiB"
    assert uep.stop() == 0


@pytest.mark.parametrize("configuration", [THREADS, PROCESSES], ids=["threads", "processes"])
def test_flood_of_large_tasks(configuration: str, start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    """As large as tasks may be: most of them wait at the broker, not in the endpoint's memory."""
    go = tmp_path / "go"
    buffer = service.pack(length_when_told, str(go), "x" * (8 << 20))
    for _ in range(120):
        service.send_buffer(buffer)
    until(lambda: service.waiting_tasks() == 120, "all tasks to wait", 60)
    process = psutil.Process(start_uep(configuration).process.pid)
    until(lambda: service.waiting_tasks() < 90, "tasks to come", 60)
    most = 0
    for _ in range(60):
        most = max(most, process.memory_info().rss)
        time.sleep(0.1)
    assert service.waiting_tasks() > 70
    assert most < 700 << 20, f"{most >> 20} MiB"
    go.touch()
    results = service.results(120, 120)
    assert {service.value(result) for result in results.values()} == {8 << 20}


@pytest.mark.parametrize("configuration", [THREADS, PROCESSES, HTEX], ids=["threads", "processes", "htex"])
def test_results_that_are_too_large(configuration: str, start_uep: StartUep, service: Service) -> None:
    start_uep(configuration)
    service.send(functions.zeros, RESULT_LIMIT + 1)
    value = service.result(30)
    assert value.error_details is not None
    assert value.error_details.code == "MaxResultSizeExceeded"
    service.send(fail_at_length, RESULT_LIMIT)
    error = service.result(30)
    assert error.error_details is not None
    assert error.error_details.code == "RemoteExecutionError"
    assert "ValueError: begin xxx" in error.data
    assert error.data.endswith("xxx end\n")
    assert re.search(r"\[\.\.\. \d+ characters left out \.\.\.\]", error.data)
    assert len(error.data) < 1 << 20
    assert len(service.call(functions.zeros, 5 << 20)) == 5 << 20


def test_a_result_that_the_broker_does_not_take(
    start_uep: StartUep, service: Service, broker: PrivateBroker, tmp_path: Path
) -> None:
    """RabbitMQ closes the connection when it comes. It must not keep the others from being sent, nor come for ever."""
    most = 300_000
    broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {most}).")
    try:
        uep = start_uep()
        large = {service.send(functions.zeros, size): size for size in (most, 2 * most)}
        small = [service.send(functions.sleep, n / 100) for n in range(30)]
        results: dict[str, messages.Result] = {}
        while not results.keys() >= {*large, *small}:  # what was on its way with a large one comes twice
            result = service.result(60)
            results[result.task_id] = result
    finally:
        broker.ctl("eval", f"application:set_env(rabbit, max_message_size, {128 << 20}).")
    for task in large:
        error = results[task].error_details
        assert error is not None
        assert error.code == "MaxResultSizeExceeded"
        assert f"takes no more than {most}" in results[task].data
    assert [service.value(results[task]) for task in small] == [n / 100 for n in range(30)]
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_whatever_a_worker_sends_is_bounded() -> None:
    task_id = str(uuid.uuid4())
    large = messages.pack(messages.Result(task_id, "x" * (RESULT_LIMIT + 1)))
    bounded = messages.unpack(error_results.bounded(task_id, large))
    assert isinstance(bounded, messages.Result)
    assert bounded.error_details is not None
    assert bounded.error_details.code == "MaxResultSizeExceeded"
    just_so = messages.pack(messages.Result(task_id, "x" * RESULT_LIMIT))
    assert error_results.bounded(task_id, just_so) == just_so
    for rubbish in (b"x" * (RESULT_LIMIT + 1), messages.pack(messages.Task(task_id, "x" * RESULT_LIMIT))):
        refused = messages.unpack(error_results.bounded(task_id, rubbish))
        assert isinstance(refused, messages.Result)
        assert (refused.task_id, refused.error_details is None) == (task_id, False)


def play_with_endpoint(
    play: Callable[[], None],
    directory: Path,
    service: Service,
    credentials: dict[str, Any],
    configuration: str = THREADS,
) -> None:
    """Calls `play` in a thread while an endpoint runs in this process, where its constants can be changed."""
    handed = HandOver(service.endpoint_id, credentials, configuration)
    settings = config.parse(configuration)

    async def run() -> None:
        directory.mkdir()
        engine = make_engine(settings.engine, EngineContext(service.endpoint_id, directory))
        running = asyncio.ensure_future(endpoint.Endpoint("uep.test", handed, settings, engine).run())
        try:
            await asyncio.to_thread(play)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 0

    before = os.getcwd(), dict(os.environ)
    try:
        asyncio.run(run())
    finally:
        os.chdir(before[0])
        os.environ.clear()
        os.environ.update(before[1])


def fill(path: Path) -> None:
    """Leaves no room on the disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
