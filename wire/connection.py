"""One AMQP connection on the running asyncio loop: pika's, with steps that can be awaited.

It never reconnects: when it is lost, everything that waits on it ends with `ConnectionLost`. `wire.reconnect` is the
policy above it. A channel that the broker closes takes the whole connection with it: after a refused operation the
safe state is a fresh start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pika

from wire.consumer import Consumer, Delivery
from wire.errors import BrokerError, ConnectionLost, QueueGone, QueueLocked, Unreachable
from wire.network_errors import REACHABLE
from wire.pending import PendingAnswers, fail, succeed
from wire.pika_errors import as_lost, channel_closed, connection_closed, not_opened
from wire.properties import TolerantConnection
from wire.publisher import Publisher
from wire.queues import place
from wire.time_limit import within

log = logging.getLogger(__name__)

OPEN_TIMEOUT = 15.0
"""Seconds to wait for the broker to answer each step (connect, open a channel, consume)."""
HEARTBEAT = 30
"""Seconds without a word from the broker that make a connection suspect; half as many pass between heartbeats.

pika looks every HEARTBEAT + 5 s whether anything came since it looked last: a silent cut of the network is noticed 35
to 70 s after it. What is published meanwhile fails with ConnectionLost then, and no sooner."""

# pika reports on its own; whatever matters reaches our log through the exceptions of `wire.errors`.
logging.getLogger("pika").setLevel(logging.CRITICAL)

T = TypeVar("T")


class Connection:
    """An open connection. Make one with `Connection.open`; `lost` is set once it is gone, whoever closed it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._pending = PendingAnswers()
        self._pika: Any = None
        self._closed = asyncio.Event()

    @property
    def lost(self) -> asyncio.Event:
        """Set once the connection is gone."""
        return self._pending.lost

    @property
    def reason(self) -> BrokerError:
        """Why it is gone."""
        return self._pending.reason

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connects to the broker at `url` (amqp or amqps; the certificate and host name of amqps are verified).

        Raises:
            Unreachable: no broker there, no TLS, or no answer within OPEN_TIMEOUT.
            AccessRefused: user or password not accepted, or no access to the virtual host.
        """
        parameters = pika.URLParameters(url)
        parameters.heartbeat = HEARTBEAT
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = OPEN_TIMEOUT
        self = cls(place(url))
        opened: asyncio.Future[None] = self._pending.future()
        TolerantConnection(
            parameters,
            on_open_callback=lambda connection: self._opened(connection, opened),
            on_open_error_callback=lambda _, error: fail(opened, not_opened(error, self._place)),
            on_close_callback=lambda _, error: self._has_closed(error),
            custom_ioloop=asyncio.get_running_loop(),
        )
        try:
            await self._answer(opened, "the connection")
        except asyncio.CancelledError:
            if self._pika is not None:  # it was opened in the same moment, and nobody else will close it
                self._pika.close()
            raise
        return self

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        most_bytes: int | None = None,
        exclusive: bool = False,
    ) -> Consumer:
        """Starts deliveries from `queue`; the broker sends at most `prefetch` messages ahead of their acks, and no more
        than about `most_bytes` (see `wire.consumer`).

        `on_delivery` may be called before this returns. An exception in it is a bug; it costs the connection.

        Raises:
            QueueGone: the queue does not exist, or may not be read.
            ConnectionLost: another consumer has the queue for itself, or the connection is gone.
        """
        channel = await self.channel()
        consuming: asyncio.Future[None] = self._pending.future()

        def receive(delivery: Delivery) -> None:
            try:
                on_delivery(delivery)
            except Exception as e:  # pika would drop it without a word
                log.exception("a delivery from %s was not handled", queue)
                self.abandon(ConnectionLost(f"a delivery was not handled: {type(e).__name__}"))

        consumer = Consumer(channel, queue, exclusive=exclusive, prefetch=prefetch, most_bytes=most_bytes)
        with as_lost():
            consumer.start(receive, lambda _: succeed(consuming, None))
        await self._answer(consuming, f"consuming from {queue}")
        return consumer

    async def publisher(self) -> Publisher:
        """Opens a channel to publish on, with confirms.

        Raises:
            ConnectionLost: the connection is gone.
        """
        channel = await self.channel()
        confirming: asyncio.Future[None] = self._pending.future()
        publisher = Publisher(channel, self._pending)
        with as_lost():
            channel.confirm_delivery(publisher.on_confirm, callback=lambda _: succeed(confirming, None))
        await self._answer(confirming, "publisher confirms")
        return publisher

    async def look_for(self, queue: str) -> int:
        """Asks whether `queue` is there, and how many consume from it. Nothing is taken from it, and nobody disturbed.

        Raises:
            QueueGone: it is not there, or this account has nothing to do with it.
            ConnectionLost: the connection is gone.
        """
        channel = await self.channel()
        found: asyncio.Future[int] = self._pending.future()
        with as_lost():
            channel.queue_declare(
                queue, passive=True, callback=lambda frame: succeed(found, int(frame.method.consumer_count))
            )
        try:
            return await self._answer(found, f"who consumes from {queue}")
        except QueueLocked:  # it is there, and one connection has it for itself
            return 1

    async def channel(self) -> Any:
        """Opens a bare pika channel; the hub, which declares exchanges and queues, is the only program to ask for one.

        Raises:
            ConnectionLost: the connection is gone.
        """
        if self.lost.is_set():
            raise self.reason
        opened: asyncio.Future[Any] = self._pending.future()
        channel = self._pika.channel(on_open_callback=lambda ch: succeed(opened, ch))
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(
            lambda _: self.abandon(QueueGone(f"the broker cancelled the consumer: its queue is gone ({self._place})"))
        )
        return await self._answer(opened, "a channel")

    async def close(self) -> None:
        """Closes the connection and waits until its socket is closed. Never raises; harmless when it is lost."""
        if self._pika is None:
            return
        if self._pika.is_open:
            self._pika.close()
        try:
            await within(OPEN_TIMEOUT, self._closed.wait())
        except asyncio.TimeoutError:
            self._pending.lose(ConnectionLost(f"the broker did not answer to the close ({self._place})"))

    def abandon(self, reason: BrokerError) -> None:
        """Gives the connection up from inside a callback: everything that waits on it fails with `reason`."""
        self._pending.lose(reason)
        if self._pika is not None and self._pika.is_open:
            self._pika.close()

    def _opened(self, connection: Any, opened: asyncio.Future[None]) -> None:
        self._pika = connection
        if opened.done():  # nobody waits any more
            connection.close()
        else:
            opened.set_result(None)

    def _has_closed(self, error: BaseException) -> None:
        self._closed.set()
        self._pending.lose(connection_closed(error, self._place))

    def _channel_closed(self, _: Any, error: BaseException) -> None:
        if not self.lost.is_set() and getattr(error, "reply_code", None) != 0:
            self.abandon(channel_closed(error, self._place))

    async def _answer(self, future: asyncio.Future[T], what: str) -> T:
        try:
            return await within(OPEN_TIMEOUT, future)
        except asyncio.TimeoutError:
            told = f"no answer from the broker at {self._place} within {OPEN_TIMEOUT:g} s ({what})"
            raise Unreachable(f"{told}; {REACHABLE}") from None
