"""Two hubs on one PostgreSQL and one broker, each killed in turn under load: nothing is lost, nothing ends twice."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pika
import pytest
from pika.exceptions import AMQPError

from hub.amqp import topology
from hub.endpoints import user_endpoint_id
from lab.broker import PROGRAM, PrivateBroker
from lab.hub import HubProcess
from lab.ports import free_ports
from lab.postgres import PrivatePostgres, programs
from lab.waiting import until
from tests.conftest import need
from wire.messages import Result, pack, unpack

pytestmark = pytest.mark.system

SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
SUBMITTERS = 4
BATCH = 5
AT_LEAST = 10
"""Submissions that are answered before each kill and after each start."""


@pytest.fixture(scope="module")
def several_broker(root: None, folder: Path) -> Iterator[PrivateBroker]:
    need(PROGRAM.exists(), "needs the package rabbitmq-server")
    need(programs() is not None, "needs the package postgresql")
    with PrivateBroker(folder / "several-broker", hub_port=free_ports(1)[0]) as running:
        yield running


@pytest.fixture(scope="module")
def hubs(folder: Path, several_broker: PrivateBroker) -> Iterator[list[HubProcess]]:
    """Two hubs with the same hub.yaml but for `listen`."""
    with PrivatePostgres(folder / "several-postgres") as database:
        made = [
            HubProcess(folder / f"several-{n}", several_broker, ["alice"], database=database.url, port=port)
            for n, port in enumerate(free_ports(2))
        ]
        made[1].users = made[0].users
        with made[0], made[1]:
            yield made


class Site:
    """Alice, her function, an endpoint, and what was answered and delivered."""

    def __init__(self, hubs: list[HubProcess], broker: PrivateBroker) -> None:
        self.hubs = hubs
        self.broker = broker
        self.over = threading.Event()
        self.answered: list[str] = []
        self.delivered: dict[str, set[str]] = defaultdict(set)
        self._next = itertools.count()
        alice = hubs[0].users["alice"]
        self.identity = alice.identities[0]["id"]
        secret = base64.b64encode(f"{alice.client_id}:{alice.client_secret}".encode()).decode()
        form = urlencode({"grant_type": "client_credentials", "scope": SCOPE})
        head = {"Authorization": f"Basic {secret}", "Content-Type": "application/x-www-form-urlencoded"}
        token = self.call(hubs[0], "POST", "/v2/oauth2/token", form, head)["access_token"]
        self.head = {"Authorization": f"Bearer {token}"}
        self.function = self.ask(1, "POST", "/v3/functions", {"function_name": "f", "function_code": "c"})[
            "function_uuid"
        ]
        self.endpoint = self.ask(0, "POST", "/v3/endpoints", {"endpoint_name": "e", "multi_user": True})["endpoint_id"]
        self.user_endpoint = user_endpoint_id(self.endpoint, self.identity, {})
        first = self.ask(1, "POST", f"/v3/endpoints/{self.endpoint}/submit", self.body(create_queue=True))
        self.group = first["task_group_id"]
        self.answered += first["tasks"][self.function]

    def body(self, **more):
        return {"tasks": {self.function: ["x"] * BATCH}, "user_endpoint_config": {}, **more}

    def call(self, hub, method, path, body, head):
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=60)
        try:
            connection.request(method, path, body, head)
            answer = connection.getresponse()
            read = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(answer.status, read)
        return json.loads(read)

    def ask(self, which, method, path, body=None):
        return self.call(self.hubs[which], method, path, json.dumps(body), self.head)

    def submit(self):
        """Submits until it is over, to one hub and the other; what was not answered may have been taken or not."""
        path = f"/v3/endpoints/{self.endpoint}/submit"
        while not self.over.is_set():
            try:
                answer = self.ask(next(self._next) % 2, "POST", path, self.body(task_group_id=self.group))
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            self.answered += answer["tasks"][self.function]

    def work(self):
        """The user endpoint, which says two different ends of each task."""
        connection = pika.BlockingConnection(pika.URLParameters(self.broker.url))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_qos(prefetch_count=20)
        for method, _, body in channel.consume(topology.task_queue(self.user_endpoint), inactivity_timeout=0.2):
            if method is not None:
                task = unpack(body).task_id
                for data in ("one", "other"):
                    key = topology.routing_key(self.user_endpoint, topology.RESULTS)
                    kept = pika.BasicProperties(delivery_mode=2)
                    channel.basic_publish(topology.RESULTS, key, pack(Result(task, data)), kept, mandatory=True)
                channel.basic_ack(method.delivery_tag)
            elif self.over.is_set():
                break
        connection.close()

    def read(self):
        """The client."""
        connection = pika.BlockingConnection(pika.URLParameters(self.broker.url))
        channel = connection.channel()
        queue = topology.client_queue_prefix(self.identity) + self.group
        for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.2):
            if method is not None:
                result = unpack(body)
                self.delivered[result.task_id].add(result.data)
            elif self.over.is_set() and not set(self.answered) - self.delivered.keys():
                break
        connection.close()

    def more(self):
        """Waits for more answers."""
        enough = len(self.answered) + AT_LEAST * BATCH
        until(lambda: len(self.answered) >= enough, "more submissions to be answered", 120)


def test_each_is_killed_in_turn_under_load(hubs: list[HubProcess], several_broker: PrivateBroker) -> None:
    site = Site(hubs, several_broker)
    reader = threading.Thread(target=site.read, daemon=True)
    others = [threading.Thread(target=work, daemon=True) for work in [site.work] + [site.submit] * SUBMITTERS]
    for thread in (reader, *others):
        thread.start()
    try:
        for hub in hubs:
            site.more()
            hub.kill()
            site.more()
            hub.start()
        site.more()
    finally:
        site.over.set()
    for thread in others:
        thread.join(60)
    until(lambda: not set(site.answered) - site.delivered.keys(), "each result", 120)
    reader.join(60)
    assert not any(thread.is_alive() for thread in (reader, *others))
    assert len(set(site.answered)) == len(site.answered) > 5 * AT_LEAST * BATCH
    assert {len(ends) for ends in site.delivered.values()} == {1}, "of two ends of a task one counts, always the same"
    for which in (0, 1):
        for first in range(0, len(site.answered), 500):
            some = site.answered[first : first + 500]
            told = site.ask(which, "POST", "/v2/batch_status", {"task_ids": some})["results"]
            assert {task: {told[task]["result"]} for task in some} == {task: site.delivered[task] for task in some}


def test_a_broker_that_is_gone_for_a_while(hubs: list[HubProcess], several_broker: PrivateBroker) -> None:
    """Both connect again, to queues that are there."""
    several_broker.restart()
    for hub in hubs:
        until(lambda hub=hub: _takes(hub, several_broker), "submissions to be taken", 60)


def _takes(hub: HubProcess, broker: PrivateBroker) -> bool:
    try:
        return bool(Site([hub, hub], broker).answered)
    except (OSError, AMQPError):
        return False
