"""Takes start commands from the command queue and gives them to the monitor, one task for each.

A command is acknowledged when the monitor has finished it: its user endpoint has been executed, or its refusal has
been told. What is not finished when the manager ends comes again to the next manager.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from mep.request import request_ids
from mep.request.refusal import UNEXPECTED, Refusal, Refused
from mep.request.start_endpoint import StartEndpoint
from mep.worker import commands
from wire.connection import Connection
from wire.consumer import Consumer, Delivery

log = logging.getLogger(__name__)

PREFETCH = 2000
MOST_BYTES = 8 * 2**20
"""Commands, and bytes of them, that are held at once; the broker holds back the rest. The monitor gives them their
turn: one requester's many must not hide the others' behind them."""


class Requests(Protocol):
    """Who takes the requests: `monitor.stages.pipeline`."""

    async def handle(self, command: StartEndpoint) -> None:
        """Brings one request to its end. Never raises."""

    async def reject(self, refusal: Refusal, request_id: str, credentials: bytes) -> None:
        """Tells about a message that is no request. `credentials` say whom, when that much of it can be read; as JSON,
        or nothing."""


class CommandConsumer:
    """The consumer of start commands. amqp_port: of config.yaml; when set, it replaces the port of each URL."""

    def __init__(self, amqp_port: int | None, requests: Requests) -> None:
        self._amqp_port = amqp_port
        self._requests = requests
        self._handlers: set[asyncio.Task[None]] = set()
        self._closed = False

    async def session(self, connection: Connection, queue: str, consuming: Callable[[], None]) -> None:
        """Consumes until the connection is lost; each delivery becomes a task. `consuming` is called once it does."""
        deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        consumer = await connection.consume(queue, deliveries.put_nowait, prefetch=PREFETCH, most_bytes=MOST_BYTES)
        consuming()
        while True:
            self._begin(await deliveries.get(), consumer)

    async def finish(self, timeout: float) -> None:
        """Takes no more commands, and lets those under way come to their end; after `timeout` seconds ends them."""
        self._closed = True
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=timeout)
        while self._handlers:  # again and again: before Python 3.12 asyncio.wait_for may drop a cancellation
            for handler in self._handlers:
                handler.cancel()
            await asyncio.wait(self._handlers, timeout=1.0)

    def _begin(self, delivery: Delivery, consumer: Consumer) -> None:
        if self._closed:
            return  # not acknowledged: the broker keeps it for the next manager
        handler = asyncio.ensure_future(self.receive(delivery))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        handler.add_done_callback(lambda done: None if done.cancelled() else consumer.ack(delivery.tag))

    async def receive(self, delivery: Delivery) -> None:
        """One delivery, from its bytes to its end. The caller acknowledges it when this returns."""
        request_id = request_ids.new(time.time())
        try:
            command = commands.decode(delivery, request_id, time.time(), self._amqp_port)
        except Refused as e:
            await self._requests.reject(e.refusal, request_id, commands.credentials_in(delivery))
        except Exception:
            log.exception("[%s] unexpected error", request_id)
            await self._requests.reject(UNEXPECTED, request_id, commands.credentials_in(delivery))
        else:
            await self._requests.handle(command)
