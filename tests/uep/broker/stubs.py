"""Stand-ins for the neighbours of the broker room: an engine, a consumer and a publisher that do as the test says."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from uep.engines.base import Engine, EngineContext, TaskRequest
from wire import messages
from wire.consumer import Delivery
from wire.queues import Target

ENDPOINT = str(uuid.uuid4())
TARGET = Target("amqp://stub", "exchange", "key")


class StubEngine(Engine):
    """Runs nothing: a task ends when the test ends its future in `running`. `ask` makes the figures."""

    def __init__(self, directory: Path, ask: Callable[[], dict[str, Any]] = dict) -> None:
        super().__init__(EngineContext(ENDPOINT, directory), {})
        self.running: dict[str, Future[bytes]] = {}
        self.requests: list[TaskRequest] = []
        self._ask = ask

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return self._ask()

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        self.requests.append(task)
        self.running[task.task_id] = Future()
        return self.running[task.task_id]

    def end(self, task_id: str, data: str = "done") -> None:
        """Ends a task with a result."""
        self.running.pop(task_id).set_result(messages.pack(messages.Result(task_id, data)))


class StubConsumer:
    """Notes what it is told; `on_ack` is called with each tag."""

    def __init__(self, on_ack: Callable[[int], None] = lambda tag: None) -> None:
        self.acked: list[int] = []
        self.unacked: set[int] = set()
        self.cancelled = False
        self._on_ack = on_ack

    def ack(self, tag: int, *, and_earlier: bool = False) -> None:
        for each in sorted(each for each in self.unacked if each == tag or (and_earlier and each < tag)):
            self._on_ack(each)
            self.unacked.discard(each)
            self.acked.append(each)

    def cancel(self) -> None:
        self.cancelled = True


class StubPublisher:
    """Keeps what is published in `sent`; the test confirms it, or lets it fail."""

    def __init__(self, *, confirms: bool = False) -> None:
        self.sent: list[tuple[bytes, asyncio.Future[None]]] = []
        self._confirms = confirms

    def send(self, target: Target, body: bytes) -> asyncio.Future[None]:
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append((body, confirmed))
        if self._confirms:
            confirmed.set_result(None)
        return confirmed

    async def publish(self, target: Target, body: bytes) -> None:
        await self.send(target, body)

    def results(self) -> dict[str, messages.Result]:
        """What was sent, by task."""
        found = [messages.unpack(body) for body, _ in self.sent]
        return {each.task_id: each for each in found if isinstance(each, messages.Result)}


def delivery(tag: int, task_id: str | None = None, body: bytes | None = None, **headers: Any) -> Delivery:
    """A task as it comes from the broker."""
    task_id = task_id or str(uuid.uuid4())
    known = {"task_uuid": task_id, "function_uuid": str(uuid.uuid4()), "resource_specification": json.dumps(None)}
    packed = messages.pack(messages.Task(task_id, "buffer")) if body is None else body
    return Delivery(tag, packed, headers={**known, **headers})
