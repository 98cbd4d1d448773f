"""The other end of the wire: a manager and a user endpoint that do just what a test tells them, over real AMQP."""

from __future__ import annotations

import json
import weakref
from typing import Any

import pika
from globus_compute_sdk.serialize import ComputeSerializer

from lab.waiting import until
from wire import messages
from wire.messages import ErrorDetails, Result, StatusReport, Task

Message = tuple[Any, Any, bytes]


class Link:
    """One connection with the credentials of one piece of queue info."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info
        self._connection = pika.BlockingConnection(pika.URLParameters(info["connection_url"]))
        self.channel = self._connection.channel()
        # A test that fails closes nothing; what it left must not fail the next one.
        weakref.finalize(self, _close, self._connection)

    def get(self, timeout: float = 5.0, *, ack: bool = True) -> Message | None:
        """The next message of the queue; None when none comes in time."""
        for method, properties, body in self.channel.consume(self.info["queue"], inactivity_timeout=timeout):
            if method is None:
                return None
            if ack:
                self.channel.basic_ack(method.delivery_tag)
            return method, properties, body
        return None

    def publish(self, body: bytes) -> None:
        """As public endpoints do it: look whether exchange and queue exist, then publish with confirms."""
        to = self.info["queue_publish_kwargs"]
        self.channel.exchange_declare(to["exchange"], passive=True)
        self.channel.queue_declare(self.info["queue"], passive=True)
        self.channel.confirm_delivery()
        self.channel.basic_publish(
            to["exchange"],
            to["routing_key"],
            body,
            pika.BasicProperties(**to["properties"]),
            mandatory=to["mandatory"],
        )

    def close(self) -> None:
        _close(self._connection)


def _close(connection: pika.BlockingConnection) -> None:
    if connection.is_open:
        connection.close()


class PeerManager:
    """A manager that only reads its commands."""

    def __init__(self, registered: dict[str, Any]) -> None:
        self.id: str = registered["endpoint_id"]
        self.registered = registered
        self._commands = Link(registered["command_queue_info"])
        self._heartbeats = Link(registered["heartbeat_queue_info"])

    def next_command(self, timeout: float = 5.0) -> tuple[Any, dict[str, Any]]:
        delivery = self._commands.get(timeout)
        assert delivery is not None, "no command came"
        return delivery[1], json.loads(delivery[2])

    def command_after_heartbeats(self) -> dict[str, Any]:
        """The next command; the hub sends it when it has waited long enough and then hears that the manager lives."""

        def command() -> Message | None:
            self.heartbeat()
            return self._commands.get(0.5)

        message = until(command, "the hub to command a start again")
        assert message is not None
        return json.loads(message[2])

    def next_command_or_none(self) -> bytes | None:
        """The body of a command that waits already."""
        delivery = self._commands.get(0.5)
        return None if delivery is None else delivery[2]

    def no_command(self, seconds: float) -> bool:
        return self._commands.get(seconds) is None

    def heartbeat(self, period: float = 30) -> None:
        self._heartbeats.publish(messages.pack(StatusReport(self.id, {"heartbeat_period": period})))

    def close(self) -> None:
        self._commands.close()
        self._heartbeats.close()


class UserEndpoint:
    """A user endpoint: runs tasks, in this process, when told to."""

    def __init__(self, command: dict[str, Any]) -> None:
        creds = command["kwargs"]["amqp_creds"]
        self.id: str = creds["endpoint_id"]
        self.tasks = Link(creds["task_queue_info"])
        self._results = Link(creds["result_queue_info"])
        self._heartbeats = Link(creds["heartbeat_queue_info"])

    def heartbeat(self, **state: Any) -> None:
        state = {"heartbeat_period": 30, "active": True, **state}
        self._heartbeats.publish(messages.pack(StatusReport(self.id, state)))

    def take(self, timeout: float = 5.0) -> tuple[dict[str, Any], Task]:
        delivery = self.tasks.get(timeout)
        assert delivery is not None, "no task came"
        task = messages.unpack(delivery[2])
        assert isinstance(task, Task)
        return delivery[1].headers, task

    def run(self, task: Task) -> None:
        serializer = ComputeSerializer()
        function, args, kwargs = serializer.unpack_and_deserialize(task.task_buffer)
        try:
            result = Result(task.task_id, serializer.serialize(function(*args, **kwargs)))
        except Exception as e:
            result = Result(task.task_id, repr(e), error_details=ErrorDetails("RemoteExecutionError", "it failed"))
        self.send(result)

    def send(self, result: Result) -> None:
        self._results.publish(messages.pack(result))

    def close(self) -> None:
        for link in (self.tasks, self._results, self._heartbeats):
            link.close()
