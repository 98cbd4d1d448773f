"""`make bench-hub`: the hub under the load of many clients, who submit in batches and read their results by AMQP.

Real are the hub, RabbitMQ, and each client: a process with one HTTP connection and a token that it got before, which
submits a batch, waits for all its results, and submits the next. A stand-in for user endpoints, one process, answers
each task at once. Printed are tasks per second, milliseconds of processor time of each part for a task (hub, broker and
clients share the machine), the time that a batch takes, and the hub's memory: before, at its highest, and afterwards.

    ARGS="--clients 300 --batch 100 --rate 5000 --seconds 30"    the defaults; a rate of 0 is as fast as it goes
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pika
import psutil
from globus_sdk import ComputeClientV3

from hub.endpoints import user_endpoint_id
from lab import loopback
from lab.broker import PrivateBroker
from lab.hub import HubProcess, User

RESULT_TIMEOUT = 120.0
"""Seconds to wait for a result before the benchmark gives up."""
KEPT = 3.0
"""Seconds for which a connection is used again; the hub closes those that are idle for longer."""
_FORKED = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Plan:
    """What each client does. pause: seconds from one submission to the next, at least."""

    port: int
    manager: str
    batch: int
    pause: float
    seconds: float


class Rest:
    """A user's HTTP connection, with a token."""

    def __init__(self, port: int, user: User) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=RESULT_TIMEOUT)
        self._used_at = 0.0
        form = urlencode({"grant_type": "client_credentials", "scope": ComputeClientV3.scopes.all})
        basic = base64.b64encode(f"{user.client_id}:{user.client_secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}"}
        token = self.ask("POST", "/v2/oauth2/token", form)["access_token"]
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        """Asks, and returns the answer. Raises RuntimeError for any but 200."""
        if self._used_at + KEPT < time.monotonic():
            self._http.close()
        self._used_at = time.monotonic()
        self._http.request(method, path, body, self._headers)
        with self._http.getresponse() as answer:
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        said: dict[str, Any] = json.loads(text)
        return said


class Client:
    """One user: a function, a task group with one task, and the queue of its results."""

    def __init__(self, plan: Plan, user: User) -> None:
        self._plan = plan
        self._rest = Rest(plan.port, user)
        function = {"function_name": "f", "function_code": "code"}
        self._function = self._rest.ask("POST", "/v3/functions", json.dumps(function))["function_uuid"]
        self._results = self._rest.ask("GET", "/v2/get_amqp_result_connection_url")
        self._group: str | None = None
        self._group = self.submit(1)["task_group_id"]

    def submit(self, count: int) -> dict[str, Any]:
        """Submits a batch."""
        body = {"tasks": {self._function: ["packed"] * count}, "create_queue": True, "task_group_id": self._group}
        return self._rest.ask("POST", f"/v3/endpoints/{self._plan.manager}/submit", json.dumps(body))

    def work(self, begin: float) -> list[float]:
        """Submits and reads until the time is up; how many seconds each batch took."""
        channel = pika.BlockingConnection(pika.URLParameters(self._results["connection_url"])).channel()
        channel.basic_qos(prefetch_count=1000)
        queue = f"{self._results['queue_prefix']}{self._group}"
        deliveries = channel.consume(queue, inactivity_timeout=RESULT_TIMEOUT)
        self._read(channel, deliveries, 1)
        taken: list[float] = []
        due = begin
        while due < begin + self._plan.seconds:
            time.sleep(max(0.0, due - time.time()))
            began = time.time()
            self.submit(self._plan.batch)
            self._read(channel, deliveries, self._plan.batch)
            taken.append(time.time() - began)
            due = max(due + self._plan.pause, time.time())
        channel.connection.close()
        return taken

    def _read(self, channel: Any, deliveries: Any, count: int) -> None:
        for _ in range(count):
            method, _, _ = next(deliveries)
            if method is None:
                raise RuntimeError(f"no result within {RESULT_TIMEOUT:g} s")
        channel.basic_ack(method.delivery_tag, multiple=True)


def answer_all(url: str, queues: list[str], ready: Connection) -> None:
    """Answers each task of these queues at once, for as long as it lives."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    properties = pika.BasicProperties(delivery_mode=2, content_type="application/octet-stream")

    def on_task(_: Any, method: Any, task: Any, __: bytes) -> None:
        sender = method.routing_key.partition(".")[0]
        data = {"task_id": task.headers["task_uuid"], "data": "result", "task_statuses": []}
        body = b"\x01" + json.dumps({"message_type": "result", "data": data}).encode()
        channel.basic_publish("results", f"{sender}.results", body, properties)
        channel.basic_ack(method.delivery_tag)

    channel.basic_qos(prefetch_count=100)
    for queue in queues:
        channel.basic_consume(queue, on_task)
    ready.send(True)
    channel.start_consuming()


def in_process(work: Callable[[], Any]) -> tuple[Any, Connection]:
    """Starts a fork that does `work` and says what came of it, with its processor time."""
    here, there = _FORKED.Pipe(duplex=False)

    def run() -> None:
        value = work()
        used = resource.getrusage(resource.RUSAGE_SELF)
        there.send((value, used.ru_utime + used.ru_stime))

    process = _FORKED.Process(target=run, daemon=True)
    process.start()
    there.close()
    return process, here


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench-hub")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--batch", type=int, default=100, help="tasks in one submission")
    parser.add_argument("--rate", type=float, default=5000, help="tasks per second of all together; 0: no limit")
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    loopback.enter_private_network()
    names = [f"user{number}" for number in range(options.clients)]
    with tempfile.TemporaryDirectory(prefix="mep-bench-") as name:
        folder = Path(name)
        with PrivateBroker(folder / "broker") as broker, HubProcess(folder / "hub", broker, ["admin", *names]) as hub:
            measure(broker, hub, names, options)


def measure(broker: PrivateBroker, hub: HubProcess, names: list[str], options: argparse.Namespace) -> None:
    """Runs the load and prints the figures."""
    manager = _register(hub)
    pause = options.clients * options.batch / options.rate if options.rate else 0.0
    plan = Plan(hub.port, manager, options.batch, pause, options.seconds)
    clients = [Client(plan, hub.users[name]) for name in names]
    queues = [f"{user_endpoint_id(manager, hub.users[n].identities[0]['id'], {})}.tasks" for n in names]
    here, there = _FORKED.Pipe(duplex=False)
    stand_in = _FORKED.Process(target=answer_all, args=(broker.url, queues, there), daemon=True)
    stand_in.start()
    here.recv()
    parts: dict[str, Sequence[int | None]] = {
        "hub": [hub.pid],
        "broker": broker.pids(),
        "user endpoints": [stand_in.pid],
    }
    before = {part: _processor_time(pids) for part, pids in parts.items()}
    memory = _memory(hub.pid, "VmRSS")
    begin = time.time() + 1 + options.clients / 100
    working = [
        in_process(lambda each=each, at=at: each.work(begin + pause * at / len(clients)))  # type: ignore[misc]
        for at, each in enumerate(clients)
    ]
    ends = [pipe.recv() for _, pipe in working]
    took = time.time() - begin
    used = {part: _processor_time(pids) - before[part] for part, pids in parts.items()}
    used["clients"] = sum(seconds for _, seconds in ends)
    batches = sorted(seconds for taken, _ in ends for seconds in taken)
    tasks = len(batches) * options.batch
    print(f"{options.clients} clients, batches of {options.batch}: {tasks} tasks in {took:.1f} s, {tasks / took:.0f}/s")
    for part, seconds in used.items():
        print(f"  processor time of {part:<16}{1000 * seconds / tasks:8.3f} ms a task  ({seconds:.1f} s)")
    print(f"  processor time of all together    {1000 * sum(used.values()) / tasks:8.3f} ms a task")
    late = batches[int(0.99 * (len(batches) - 1))]
    print(f"  a batch, submission to last result: median {statistics.median(batches):.2f} s, 99 of 100 {late:.2f} s")
    after, most = _memory(hub.pid, "VmRSS"), _memory(hub.pid, "VmHWM")
    print(f"  memory of the hub: {memory:.0f} MiB before, {most:.0f} at the highest, {after:.0f} afterwards")
    stand_in.kill()
    stand_in.join()
    for process, _ in working:
        process.join()


def _register(hub: HubProcess) -> str:
    """Registers an endpoint for everybody; nobody plays its manager."""
    admin, body = hub.users["admin"], {"endpoint_name": "bench", "multi_user": True, "public": True}
    return str(Rest(hub.port, admin).ask("POST", "/v3/endpoints", json.dumps(body))["endpoint_id"])


def _processor_time(pids: Sequence[int | None]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _memory(pid: int, key: str) -> float:
    """MiB of one of the lines of /proc/PID/status."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
