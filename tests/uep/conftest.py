"""A private RabbitMQ, a peer that plays the web service over AMQP, and the real program, started as by the manager."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import pytest
from cryptography.fernet import Fernet
from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

from lab.broker import PROGRAM, PrivateBroker
from tests.conftest import need
from tests.uep.task_requests import StartEngine, engines_in
from uep.storage.result_store import results_in
from wire import messages

logging.getLogger("pika").setLevel(logging.CRITICAL)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A RabbitMQ node of this folder's own, to be stopped, started, and given users at will."""
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    with PrivateBroker(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


class Service:
    """Declares what the web service declares, sends tasks, and reads results and heartbeats."""

    def __init__(self, url: str, endpoint_id: str) -> None:
        self.url, self.endpoint_id = url, endpoint_id
        self.task_queue = f"{endpoint_id}.tasks"
        self.serializer = ComputeSerializer()
        self.connection: Any = None
        self.connect()
        for exchange in ("tasks", "results", "heartbeats"):
            self.channel.exchange_declare(exchange, "topic", durable=True)
        self.channel.queue_declare(self.task_queue, durable=True)
        self.channel.queue_bind(self.task_queue, "tasks", self.task_queue)
        for kind in ("results", "heartbeats"):
            name = f"{endpoint_id}.{kind}"
            self.channel.queue_declare(name, durable=True)
            self.channel.queue_bind(name, kind, name)

    def connect(self) -> None:
        """Also again, when the broker has cut the connection."""
        self.close()
        self.connection = pika.BlockingConnection(pika.URLParameters(self.url))
        self.channel = self.connection.channel()

    def close(self) -> None:
        if self.connection is not None:
            with contextlib.suppress(pika.exceptions.AMQPError):
                self.connection.process_data_events(0)
                self.connection.close()
            self.connection._cleanup()  # pika keeps the sockets of a connection that it lost
            self.connection = None

    def credentials(self, url: str | None = None) -> dict[str, Any]:
        def target(kind: str) -> dict[str, Any]:
            publish = {
                "exchange": kind,
                "routing_key": f"{self.endpoint_id}.{kind}",
                "mandatory": True,
                "properties": {"delivery_mode": 2, "content_type": "application/octet-stream"},
            }
            return {
                "connection_url": url or self.url,
                "exchange": kind,
                "queue": kind,
                "queue_publish_kwargs": publish,
            }

        tasks = {"connection_url": url or self.url, "exchange": "tasks", "queue": self.task_queue}
        return {
            "endpoint_id": self.endpoint_id,
            "task_queue_info": tasks,
            "result_queue_info": target("results"),
            "heartbeat_queue_info": target("heartbeats"),
        }

    def pack(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        # Functions travel as text: the endpoint cannot import test modules.
        code = PureSourceTextInspect().serialize if inspect.isfunction(function) else self.serializer.serialize
        data = self.serializer.serialize
        return self.serializer.pack_buffers([code(function), data(args), data(kwargs)])

    def send(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        return self.send_buffer(self.pack(function, *args, **kwargs))

    def send_buffer(self, buffer: str, task_id: str | None = None, **headers: Any) -> str:
        task_id = task_id or str(uuid.uuid4())
        known = {
            "task_uuid": task_id,
            "function_uuid": str(uuid.uuid4()),
            "resource_specification": None,
            "result_serializers": [],
        }
        properties = pika.BasicProperties(headers={**known, **headers}, delivery_mode=2)
        self.channel.basic_publish("tasks", self.task_queue, messages.pack(messages.Task(task_id, buffer)), properties)
        return task_id

    def result(self, timeout: float = 15) -> messages.Result:
        message = self._next("results", timeout)
        assert isinstance(message, messages.Result)
        return message

    def results(self, count: int, timeout: float = 60) -> dict[str, messages.Result]:
        deadline = time.monotonic() + timeout
        got = [self.result(max(0.1, deadline - time.monotonic())) for _ in range(count)]
        return {result.task_id: result for result in got}

    def value(self, result: messages.Result) -> Any:
        assert result.error_details is None, result.data
        return self.serializer.deserialize(result.data)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        task_id = self.send(function, *args, **kwargs)
        result = self.result()
        assert result.task_id == task_id
        return self.value(result)

    def heartbeat(self, timeout: float = 15) -> dict[str, Any]:
        message = self._next("heartbeats", timeout)
        assert isinstance(message, messages.StatusReport)
        assert message.endpoint_id == self.endpoint_id
        return dict(message.global_state)

    def heartbeat_where(self, holds: Callable[[dict[str, Any]], bool], timeout: float = 15) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while not holds(beat := self.heartbeat(max(0.1, deadline - time.monotonic()))):
            pass
        return beat

    def waiting_tasks(self) -> int:
        return int(self.channel.queue_declare(self.task_queue, passive=True).method.message_count)

    def _next(self, kind: str, timeout: float) -> messages.Message:
        queue = f"{self.endpoint_id}.{kind}"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            _, _, body = self.channel.basic_get(queue, auto_ack=True)
            if body is not None:
                return messages.unpack(body)
            time.sleep(0.001)
        raise AssertionError(f"nothing in {queue} within {timeout:g} s")


@pytest.fixture
def service(broker: PrivateBroker) -> Iterator[Service]:
    peer = Service(broker.url, str(uuid.uuid4()))
    yield peer
    peer.close()


THREADS = "heartbeat_period: 0.5\nengine:\n  type: ThreadPoolEngine\n  max_workers: 4\n"


@dataclass
class Uep:
    """A running `mep-uep`, with the manager's ends of its descriptors."""

    process: subprocess.Popen[bytes]
    directory: Path
    log: Path
    credential_fd: int
    fernet: Fernet
    ready: int
    started: float = field(default_factory=time.monotonic)

    def wait_ready(self, timeout: float = 10) -> float:
        """Seconds from exec to the first line on report_fd."""
        os.set_blocking(self.ready, False)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(BlockingIOError):
                assert os.read(self.ready, 100) == b"ready\n", self.log.read_text()
                return time.monotonic() - self.started
            time.sleep(0.001)
        raise AssertionError(self.log.read_text())

    def refresh(self, credentials: dict[str, Any]) -> None:
        """As the manager does: rewritten in place."""
        os.ftruncate(self.credential_fd, 0)
        os.pwrite(self.credential_fd, self.fernet.encrypt(json.dumps({"amqp_creds": credentials}).encode()), 0)

    def log_says(self, text: str, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def descendants(self) -> list[int]:
        """Living processes of its session other than itself, whoever their parent is now."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                with contextlib.suppress(OSError):
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                    if int(session) == self.process.pid and state != "Z":
                        found.append(int(entry.name))
        return found

    def wait_alone(self, timeout: float = 10) -> None:
        """Returns once nothing of its session is left."""
        deadline = time.monotonic() + timeout
        while left := self.descendants():
            assert time.monotonic() < deadline, [Path(f"/proc/{p}/cmdline").read_bytes() for p in left]
            time.sleep(0.05)


StartUep = Callable[..., Uep]


def kept_results(directory: Path) -> list[str]:
    """The tasks whose results an endpoint keeps in its `directory`, unconfirmed; whether it runs or not."""
    kept = []
    for path in sorted((directory / "unacked_results").glob("*")):
        with path.open("rb") as file:
            kept += [task_id for task_id, _, _, _, unconfirmed in results_in(file.fileno()) if unconfirmed]
    return kept


@pytest.fixture
def start_uep(tmp_path: Path, service: Service) -> Iterator[StartUep]:
    """Starts the program with a hand-over; the endpoints of one test share a home, as successors do."""
    started: list[Uep] = []

    def start(config: str = THREADS, name: str = "uep.test", raw: bytes | None = None, **more: Any) -> Uep:
        """`more` are keys of the hand-over; `also` is a descriptor of ours and its number there, `environment` what
        the site adds to the program's environment."""
        uep = _start(tmp_path, service, config, name, raw, more)
        started.append(uep)
        return uep

    yield start
    for uep in started:
        if uep.process.poll() is None:
            uep.process.kill()
        uep.process.wait()
        for pid in uep.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for fd in (uep.credential_fd, uep.ready):
            os.close(fd)


def _start(home: Path, service: Service, config: str, name: str, raw: bytes | None, more: dict[str, Any]) -> Uep:
    fernet = Fernet(key := Fernet.generate_key())
    also = more.pop("also", None)
    environment = more.pop("environment", {})
    credentials = more.pop("amqp_creds", None) or service.credentials()
    credential_fd = os.memfd_create("credentials")
    os.pwrite(credential_fd, fernet.encrypt(json.dumps({"amqp_creds": credentials}).encode()), 0)
    read_only = os.open(f"/proc/self/fd/{credential_fd}", os.O_RDONLY)
    ready_read, ready_write = os.pipe()
    handover = {
        "amqp_creds": credentials,
        "config": config,
        "ep_info": {"posix_ppid": os.getpid(), "globus_matched_identity": str(uuid.uuid4())},
        "mem_fd": 3,
        "enckey": key.decode(),
        "report_fd": 4,
        **more,
    }
    hand_fd = os.memfd_create("handover")
    os.write(hand_fd, raw if raw is not None else json.dumps(handover).encode())
    os.lseek(hand_fd, 0, os.SEEK_SET)
    directory = home / ".globus_compute" / name
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "endpoint.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "uep" / "cli.py"), name],
            stdin=hand_fd,
            stdout=out,
            stderr=out,
            cwd=home,
            env={"HOME": str(home), "USER": "root", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True,
            preexec_fn=lambda: _place({3: read_only, 4: ready_write} | ({} if also is None else {also[1]: also[0]})),
            close_fds=False,
        )
    uep = Uep(process, directory, log, credential_fd, fernet, ready_read)
    for fd in (hand_fd, read_only, ready_write):
        os.close(fd)
    return uep


def _place(descriptors: dict[int, int]) -> None:
    """In the child: the descriptors where the hand-over says they are, and no others of ours."""
    out_of_the_way = {number: os.dup2(fd, 4000 + number) for number, fd in descriptors.items()}
    for number, fd in out_of_the_way.items():
        os.dup2(fd, number, inheritable=True)
    os.closerange(max(descriptors) + 1, 5000)


def wait_until(holds: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartEngine]:
    """Starts an engine, described as in a configuration, that works in `tmp_path`."""
    with engines_in(tmp_path) as make:
        yield make
