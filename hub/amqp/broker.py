"""The hub's connection to RabbitMQ: declares what is to be there, publishes, and hands over what comes in.

`run` stays connected for as long as the hub lives. While there is no connection, publishing raises ConnectionLost,
which a REST call turns into 503. Deliveries go to a handler in batches and are acked when the handler returns; what
was not acked comes again on the next connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.exc import DataError, SQLAlchemyError

from hub.amqp import topology
from wire.connection import Connection
from wire.consumer import Consumer, Delivery
from wire.errors import BrokerError, ConnectionLost, QueueGone
from wire.pending import fail, succeed
from wire.printable import printable
from wire.publisher import Publisher
from wire.queues import Target
from wire.reconnect import stay_connected

log = logging.getLogger(__name__)

PREFETCH = 2000
"""Unacked deliveries from each queue; also the largest batch."""
MOST_BYTES = 16 * 2**20
"""Bytes of them, about: one who sends large results must not have the hub hold many of them."""

STORE_AGAIN = 2.0
"""Seconds between two attempts to store what came in."""
_LONGEST_LOGGED = 200

Handler = Callable[[list[Delivery]], Awaitable[None]]


class Broker:
    """One connection at a time. `run` it as a task; the other methods work while it is connected."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._publisher: Publisher | None = None
        self._channel: Any = None
        self._answers: set[asyncio.Future[Any]] = set()
        self.connected = asyncio.Event()

    async def run(
        self, first: Connection, handlers: Mapping[str, Handler], on_connected: Callable[[], Awaitable[None]]
    ) -> None:
        """Stays connected, and never returns. `first` is an open connection; `handlers` are by queue.

        `on_connected` runs on each connection before deliveries begin.
        """
        waiting = [first]

        async def open_connection() -> Connection:
            return waiting.pop() if waiting else await Connection.open(self._url)

        async def session(connection: Connection) -> None:
            try:
                await self._begin(connection)
                try:
                    await on_connected()
                except SQLAlchemyError as e:
                    raise ConnectionLost(f"gave up the connection, as the database cannot be used: {e}") from e
                await asyncio.gather(*(_drain(connection, queue, handle) for queue, handle in handlers.items()))
            finally:
                self._end()

        await stay_connected(open_connection, session, _report)

    def send(self, target: Target, body: bytes) -> asyncio.Future[None]:
        """Publishes; the future ends with the broker's confirm, or with NotDelivered or ConnectionLost."""
        if self._publisher is None:
            raise ConnectionLost("not connected to RabbitMQ")
        return self._publisher.send(target, body)

    async def declare_queue(self, queue: str) -> tuple[int, int]:
        """Makes a command or task queue unless it is there; returns how many messages and how many consumers it has."""
        frame = await self._call("queue_declare", queue=queue, durable=True)
        return frame.method.message_count, frame.method.consumer_count

    async def declare_client_queue(self, queue: str) -> None:
        """Makes the result queue of a task group unless it is there."""
        expires = {"x-expires": topology.CLIENT_QUEUE_LIFE * 1000}
        await self._call("queue_declare", queue=queue, durable=True, arguments=expires)

    async def delete_queue(self, queue: str) -> None:
        """Removes a queue; its consumers are cancelled."""
        await self._call("queue_delete", queue=queue)

    async def purge_queue(self, queue: str) -> None:
        """Drops what lies in a queue that exists; what somebody has been sent is theirs."""
        await self._call("queue_purge", queue=queue)

    @contextlib.asynccontextmanager
    async def sole_reader(self, queue: str) -> AsyncIterator[bool]:
        """Keeps all others from reading a queue that exists, and drops what lies in it at the end of the block.

        False, and nothing is dropped, when somebody else reads it. An error in the block drops nothing, either.

        Raises:
            BrokerError: no connection.
        """
        connection = await Connection.open(self._url)  # its own: a refused consumer takes the connection with it
        try:
            held: list[Delivery] = []
            consumer: Consumer | None = None
            with contextlib.suppress(ConnectionLost):
                consumer = await connection.consume(queue, held.append, prefetch=1, exclusive=True)
            yield consumer is not None
            if consumer is not None:
                await self.purge_queue(queue)
                for delivery in held:
                    consumer.ack(delivery.tag)
        finally:
            await connection.close()

    async def _begin(self, connection: Connection) -> None:
        self._channel = await connection.channel()
        for exchange in (topology.COMMANDS, topology.TASKS, topology.RESULTS, topology.HEARTBEATS):
            await self._call("exchange_declare", exchange=exchange, exchange_type="topic", durable=True)
        await self._call("queue_declare", queue=topology.POISON, durable=True, arguments=topology.QUORUM)
        for inbox, arguments in topology.INBOXES.items():
            if not await self._is_there(inbox):
                await self._call("queue_declare", queue=inbox, durable=True, arguments=arguments)
            await self._call("queue_bind", queue=inbox, exchange=inbox, routing_key=f"*.{inbox}")
        self._publisher = await connection.publisher()
        self.connected.set()

    async def _is_there(self, queue: str) -> bool:
        """Tells whether there is such a queue, whatever its arguments: one of an earlier version stays as it is."""
        connection = await Connection.open(self._url)  # its own: a queue that is not there takes the connection with it
        try:
            await connection.look_for(queue)
        except QueueGone:
            return False
        finally:
            await connection.close()
        return True

    def _end(self) -> None:
        self.connected.clear()
        self._publisher = self._channel = None
        for answer in list(self._answers):
            fail(answer, ConnectionLost("the connection to RabbitMQ was lost"))

    async def _call(self, method: str, **arguments: Any) -> Any:
        """Calls a synchronous AMQP method on the bare channel; returns its answer frame."""
        if self._channel is None:
            raise ConnectionLost("not connected to RabbitMQ")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)

        def on_answer(frame: Any) -> None:
            succeed(answer, frame)

        try:
            getattr(self._channel, method)(**arguments, callback=on_answer)
        except Exception as e:  # pika raises on a channel that has just been closed
            answer.cancel()
            raise ConnectionLost("the connection to RabbitMQ was lost") from e
        return await answer


async def _drain(connection: Connection, queue: str, handle: Handler) -> None:
    arrived: list[Delivery] = []
    some = asyncio.Event()

    def on_delivery(delivery: Delivery) -> None:
        arrived.append(delivery)
        some.set()

    consumer = await connection.consume(queue, on_delivery, prefetch=PREFETCH, most_bytes=MOST_BYTES)
    while True:
        await some.wait()
        some.clear()
        batch = arrived.copy()
        arrived.clear()
        # Not given back to the broker, which drops what it has delivered too often.
        while not await _is_stored(queue, handle, batch):
            await asyncio.sleep(STORE_AGAIN)
        for delivery in batch:
            consumer.ack(delivery.tag)


async def _is_stored(queue: str, handle: Handler, batch: list[Delivery]) -> bool:
    try:
        await _handle(handle, batch)
    except SQLAlchemyError as e:  # such as a full disk
        log.error("Cannot store what came in from queue %s, next attempt in %g s: %s", queue, STORE_AGAIN, e)
        return False
    return True


async def _handle(handle: Handler, batch: list[Delivery]) -> None:
    """Drops a message that the handler cannot digest, and that alone: it must stop neither the others nor the hub."""
    try:
        await handle(batch)
    except Exception as e:
        # Data that cannot be stored is the message's fault; all else of the database's is not.
        if isinstance(e, (BrokerError, SQLAlchemyError)) and not isinstance(e, DataError):
            raise
        if len(batch) == 1:
            why = printable(f"{type(e).__name__}: {e}", _LONGEST_LOGGED)
            log.error("Dropped a message from %s: %s", printable(batch[0].routing_key, _LONGEST_LOGGED), why)
            log.debug("Where it failed", exc_info=True)
            return
        for delivery in batch:
            await _handle(handle, [delivery])


def _report(error: BrokerError, wait: float) -> None:
    log.warning("RabbitMQ: %s; next attempt in %.1f s", error, wait)
