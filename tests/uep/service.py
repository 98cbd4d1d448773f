"""A peer that plays the web service over AMQP: it sends tasks, and reads results and heartbeats."""

from __future__ import annotations

import contextlib
import inspect
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import pika
from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

from wire import messages, stop_request

logging.getLogger("pika").setLevel(logging.CRITICAL)


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

    def ask_to_stop(self) -> None:
        """As the hub does when the user wants it to."""
        properties = pika.BasicProperties(headers=dict(stop_request.HEADERS))
        self.channel.basic_publish("", self.task_queue, b"", properties)

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
