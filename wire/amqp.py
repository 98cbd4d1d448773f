"""One AMQP connection on the running asyncio loop: consume with acks, publish with confirms, stay connected.

`Connection` is pika's asyncio connection with awaitable steps. It never reconnects: when it is lost, everything that
waits on it ends with `ConnectionLost`. `stay_connected` is the policy above it: open, run a session, and when the
connection is lost wait (`wire.backoff`) and begin again. The manager, the user endpoint and the hub differ only in
their sessions.

A channel that the broker closes takes the whole connection with it: after a refused operation the safe state is a
fresh start. Error texts never hold a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPError, ConnectionClosedByBroker, ProbableAuthenticationError

from wire import backoff
from wire.consumer import Consumer
from wire.queues import Target
from wire.redaction import redact

log = logging.getLogger(__name__)

OPEN_TIMEOUT = 15.0
"""Seconds to wait for the broker to answer each step (connect, open a channel, consume)."""
HEARTBEAT = 30
"""Seconds without a word from the broker that make a connection suspect; half as many pass between heartbeats.

pika looks every HEARTBEAT + 5 s whether anything came since it looked last: a silent cut of the network is noticed 35
to 70 s after it. What is published meanwhile fails with ConnectionLost then, and no sooner."""

STABLE = 10.0
"""Seconds after which a connection counts as good: the waits between attempts then begin small again."""

# pika reports on its own; whatever matters reaches our log through the exceptions below.
logging.getLogger("pika").setLevel(logging.CRITICAL)

_REMEDIES = {
    9: "is the clock of this host right?",  # X509_V_ERR_CERT_NOT_YET_VALID, as in x509_vfy.h of OpenSSL
    10: "the broker needs a new one, or the clock of this host is wrong",
    62: "something else answers there, or the broker needs a certificate for this name",
    64: "something else answers there, or the broker needs a certificate for this address",
}
"""What to do about a certificate that is refused, by OpenSSL's code."""

T = TypeVar("T")


class BrokerError(Exception):
    """Something that the broker or the network refused. The text is safe to log."""


class Unreachable(BrokerError):
    """No connection could be made."""


class AccessRefused(BrokerError):
    """The broker does not accept the user and password of the URL."""


class ConnectionLost(BrokerError):
    """The connection, or a channel of it, was closed; whatever was not confirmed may or may not have arrived."""


class TooLarge(ConnectionLost):
    """The broker closed the channel because a message has more than `limit` bytes; sent again, it would do so again."""

    def __init__(self, text: str, limit: int) -> None:
        super().__init__(text)
        self.limit = limit


class NotDelivered(BrokerError):
    """The broker answered that it could not take or route the message."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message from a queue. `timestamp` is in seconds since the epoch; `tag` is what `Consumer.ack` takes.

    The broker lets each account publish under its own routing keys only: `routing_key` tells who sent the message.
    """

    tag: int
    body: bytes
    content_type: str | None = None
    timestamp: int | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False
    routing_key: str = ""


class Connection:
    """An open connection. Make one with `Connection.open`; `lost` is set once it is gone, whoever closed it."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.reason: BrokerError = ConnectionLost("connection closed")
        self._pika: Any = None
        self._closed = asyncio.Event()
        self._waiting: set[asyncio.Future[Any]] = set()

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
        self = cls()
        opened: asyncio.Future[None] = self._future()
        AsyncioConnection(
            parameters,
            on_open_callback=lambda connection: self._opened(connection, opened),
            on_open_error_callback=lambda _, error: _fail(opened, _open_error(error)),
            on_close_callback=lambda _, error: self._has_closed(error),
            custom_ioloop=asyncio.get_running_loop(),
        )
        await self._answer(opened, "the connection")
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
            ConnectionLost: the queue does not exist, may not be read, or the connection is gone.
        """
        channel = await self._channel()
        consuming: asyncio.Future[None] = self._future()

        def receive(_: Any, method: Any, properties: Any, body: bytes) -> None:
            try:
                on_delivery(_delivery(method, properties, body))
            except Exception as e:  # pika would drop it without a word
                log.exception("a delivery from %s was not handled", queue)
                self.abandon(ConnectionLost(f"a delivery was not handled: {type(e).__name__}"))

        consumer = Consumer(channel, queue, exclusive=exclusive, prefetch=prefetch, most_bytes=most_bytes)
        with _as_lost():
            consumer.start(receive, lambda _: _succeed(consuming, None))
        await self._answer(consuming, f"consuming from {queue}")
        return consumer

    async def publisher(self) -> Publisher:
        """A channel to publish on, with confirms. Raises ConnectionLost."""
        channel = await self._channel()
        confirming: asyncio.Future[None] = self._future()
        publisher = Publisher(self, channel)
        with _as_lost():
            channel.confirm_delivery(publisher.on_confirm, callback=lambda _: _succeed(confirming, None))
        await self._answer(confirming, "publisher confirms")
        return publisher

    async def channel(self) -> Any:
        """A bare pika channel, for the one program that declares exchanges and queues (the hub)."""
        return await self._channel()

    async def close(self) -> None:
        """Closes the connection and waits until its socket is closed. Never raises; harmless when it is lost."""
        if self._pika is None:
            return
        if self._pika.is_open:
            self._pika.close()
        try:
            await asyncio.wait_for(self._closed.wait(), OPEN_TIMEOUT)
        except asyncio.TimeoutError:
            self._lose(ConnectionLost("the broker did not answer to the close"))

    def abandon(self, reason: BrokerError) -> None:
        """Gives the connection up from inside a callback: everything that waits on it fails with `reason`."""
        self._lose(reason)
        if self._pika is not None and self._pika.is_open:
            self._pika.close()

    async def _channel(self) -> Any:
        if self.lost.is_set():
            raise self.reason
        opened: asyncio.Future[Any] = self._future()
        channel = self._pika.channel(on_open_callback=lambda ch: _succeed(opened, ch))
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(
            lambda _: self.abandon(ConnectionLost("the broker cancelled the consumer: its queue is gone"))
        )
        return await self._answer(opened, "a channel")

    def _opened(self, connection: Any, opened: asyncio.Future[None]) -> None:
        self._pika = connection
        if opened.done():  # nobody waits any more
            connection.close()
        else:
            opened.set_result(None)

    def _has_closed(self, error: BaseException) -> None:
        self._closed.set()
        self._lose(ConnectionLost(_text(error)))

    def _channel_closed(self, _: Any, error: BaseException) -> None:
        if not self.lost.is_set() and getattr(error, "reply_code", None) != 0:
            self.abandon(_closed(_text(error)))

    def _lose(self, reason: BrokerError) -> None:
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()
        for future in list(self._waiting):
            _fail(future, self.reason)

    def _future(self) -> asyncio.Future[Any]:
        """A future that fails when the connection is lost."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        future.add_done_callback(_retrieve)
        return future

    @staticmethod
    async def _answer(future: asyncio.Future[T], what: str) -> T:
        try:
            return await asyncio.wait_for(future, OPEN_TIMEOUT)
        except asyncio.TimeoutError:
            raise Unreachable(f"no answer from the broker within {OPEN_TIMEOUT:g} s ({what})") from None


class Publisher:
    """A channel in confirm mode. `send` does not wait; `publish` waits for the broker's word."""

    def __init__(self, connection: Connection, channel: Any) -> None:
        self._connection = connection
        self._channel = channel
        self._last_tag = 0
        self._unconfirmed: dict[int, asyncio.Future[None]] = {}
        channel.add_on_return_callback(self._on_return)

    async def publish(self, target: Target, body: bytes) -> None:
        """Publishes `body` and returns once the broker has confirmed it.

        Raises:
            NotDelivered: the broker refused the message, or no queue is bound for it.
            ConnectionLost: the connection went away first.
        """
        await self.send(target, body)

    def send(self, target: Target, body: bytes) -> asyncio.Future[None]:
        """Publishes `body`; the future ends when the broker confirms, with the errors of `publish`."""
        confirmed: asyncio.Future[None] = self._connection._future()
        if self._connection.lost.is_set() or not self._channel.is_open:
            _fail(confirmed, self._connection.reason)
            return confirmed
        self._last_tag += 1
        self._unconfirmed[self._last_tag] = confirmed
        # A returned message comes back without its delivery tag: it carries it as its message id.
        properties = pika.BasicProperties(**{**target.properties, "message_id": str(self._last_tag)})
        self._channel.basic_publish(target.exchange, target.routing_key, body, properties, mandatory=target.mandatory)
        return confirmed

    def on_confirm(self, frame: Any) -> None:
        """pika's callback: the broker has taken (Ack) or refused (Nack) one message, or all up to one."""
        method = frame.method
        first = next(iter(self._unconfirmed), 1) if method.multiple else method.delivery_tag
        for tag in range(first, method.delivery_tag + 1):
            confirmed = self._unconfirmed.pop(tag, None)
            if confirmed is None:
                continue
            if isinstance(method, pika.spec.Basic.Ack):
                _succeed(confirmed, None)
            else:
                _fail(confirmed, NotDelivered("the broker refused the message"))

    def _on_return(self, _: Any, method: Any, properties: Any, __: bytes) -> None:
        confirmed = self._unconfirmed.pop(int(properties.message_id), None)
        if confirmed is not None:
            where = f"exchange {method.exchange}, routing key {method.routing_key}"
            _fail(confirmed, NotDelivered(f"the broker has no queue for the message ({where})"))


async def publish_once(target: Target, body: bytes) -> None:
    """Publishes one message over a connection of its own, and returns once the broker has confirmed it.

    Raises:
        BrokerError: no connection, or the errors of `Publisher.publish`.
    """
    connection = await Connection.open(target.connection_url)
    try:
        publisher = await connection.publisher()
        await publisher.publish(target, body)
    finally:
        await connection.close()


async def stay_connected(
    open_connection: Callable[[], Awaitable[Connection]],
    session: Callable[[Connection], Awaitable[None]],
    on_trouble: Callable[[BrokerError, float], None],
) -> None:
    """Runs `session` on a connection, on a new one whenever the old one is lost, until a session returns.

    A session is cancelled when its connection is lost. `on_trouble` is told what happened and how many seconds pass
    before the next attempt. The connection is closed in the end, whatever happens.
    """
    waits = backoff.delays()
    while True:
        try:
            connection = await open_connection()
            try:
                began = time.monotonic()
                if await _until_lost(connection, session):
                    return
                # A session that fails at once (its queue is taken, say) must not be begun again five times a second.
                if time.monotonic() - began > STABLE:
                    waits = backoff.delays()
                raise connection.reason
            finally:
                await connection.close()
        except BrokerError as e:
            wait = next(waits)
            on_trouble(e, wait)
            await asyncio.sleep(wait)


async def _until_lost(connection: Connection, session: Callable[[Connection], Awaitable[None]]) -> bool:
    """True when the session ended by itself; False when the connection was lost first."""
    running = asyncio.ensure_future(session(connection))
    lost = asyncio.ensure_future(connection.lost.wait())
    try:
        await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return False
        try:
            running.result()
        except ConnectionLost:
            return False
        return True
    finally:
        for task in (running, lost):
            task.cancel()
        await asyncio.gather(running, lost, return_exceptions=True)


@contextlib.contextmanager
def _as_lost() -> Iterator[None]:
    """pika refuses an operation on a channel that the broker has just closed with an error of its own."""
    try:
        yield
    except AMQPError as e:
        raise ConnectionLost(f"the channel was closed: {_text(e)}") from None


def _delivery(method: Any, properties: Any, body: bytes) -> Delivery:
    return Delivery(
        tag=method.delivery_tag,
        body=body,
        content_type=properties.content_type,
        timestamp=properties.timestamp,
        headers=properties.headers or {},
        redelivered=method.redelivered,
        routing_key=method.routing_key,
    )


def _closed(text: str) -> ConnectionLost:
    """Why the broker closed a channel. RabbitMQ tells the largest message that it takes in words only."""
    largest = re.search(r"message size \d+ is larger than \D*(\d+)", text)
    text = f"channel closed: {text}"
    return TooLarge(text, int(largest[1])) if largest else ConnectionLost(text)


def _open_error(error: BaseException) -> BrokerError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ProbableAuthenticationError) or (
            isinstance(cause, ConnectionClosedByBroker) and cause.reply_code == 403
        ):
            return AccessRefused("the broker refuses this user and password")
        if isinstance(cause, ssl.SSLError):
            return Unreachable(f"no trustworthy connection to the broker: {_tls_text(cause)}")
        cause = _nested(cause)
    return Unreachable(f"cannot connect to the broker: {_text(error)}")


def _tls_text(error: ssl.SSLError) -> str:
    """Why, and what to do about it."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed ({error.reason or error}); is the port one for amqps (5671, 443), not for amqp?"
    remedy = _REMEDIES.get(
        error.verify_code,
        "is its CA among those that this system trusts, or in the file that SSL_CERT_FILE names?",
    )
    return f"its certificate is refused, {error.verify_message}; {remedy}"


def _nested(error: BaseException) -> BaseException | None:
    """pika wraps the cause of a failed attempt in lists (`exceptions`) and attributes (`exception`)."""
    inner = getattr(error, "exceptions", None) or [getattr(error, "exception", None)]
    return inner[-1] or error.__cause__


def _text(error: BaseException) -> str:
    deepest = error
    while (inner := _nested(deepest)) is not None:
        deepest = inner
    text = str(deepest) if isinstance(deepest, (AMQPError, OSError)) and str(deepest) else repr(deepest)
    return redact(text)


def _succeed(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Marks the exception as seen: a future that nobody awaits any more must not complain in the log."""
    if not future.cancelled():
        future.exception()
