"""Deliveries from one queue, bounded in number and in bytes.

RabbitMQ bounds what it sends ahead of acknowledgements by number only. Few large messages or many small ones: which
it is shows in what arrives. So a `Consumer` begins with few, and consumes anew with as many as fit once a whole window
of messages was small enough; when more than `most_bytes` lie unacknowledged, it does so with fewer, and grows again
only after CALM windows. What is on its way at that moment goes back to the queue, into its old place, and comes again:
for a quorum queue a delivery more, of which it allows so many (20, when nobody has said otherwise).

So at most about `most_bytes`, and FEWEST messages more, are held for a caller that does not acknowledge. A limit for
the whole channel could be changed without consuming anew, but quorum queues do not have it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.printable import printable
from wire.properties import UnreadableProperties, problem

log = logging.getLogger(__name__)

FEWEST = 8
"""Messages that may always be on their way, however large they are; with these it begins."""

CALM = 4
"""Windows of small messages after which it grows again, once it had to shrink."""

_LONGEST_LOGGED = 200


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


class Consumer:
    """Made by `Connection.consume`, which calls `start`; acknowledges what was received, and ends the deliveries."""

    def __init__(self, channel: Any, queue: str, *, exclusive: bool, prefetch: int, most_bytes: int | None) -> None:
        self._channel = channel
        self._queue = queue
        self._exclusive = exclusive
        self._most = prefetch
        self._most_bytes = most_bytes
        self._prefetch = prefetch if most_bytes is None else min(FEWEST, prefetch)
        self._unacked: dict[int, int] = {}
        self._bytes = 0
        self._seen = self._largest = 0
        self._calm, self._calm_needed = 0, 1
        self._receive: Callable[[Delivery], None]
        self._tag = ""

    def start(self, receive: Callable[[Delivery], None], consuming: Callable[[Any], None]) -> None:
        """Consumes; calls `receive` with each message, and `consuming` when the broker has agreed."""
        self._receive = receive
        self._consume(consuming)

    def ack(self, tag: int, *, and_earlier: bool = False) -> None:
        """Tells the broker that the delivery is done with, or it and all before it that are not acknowledged yet.

        Does nothing on a lost channel: they will come again.
        """
        while and_earlier and (first := next(iter(self._unacked), tag)) < tag:
            self._bytes -= self._unacked.pop(first)
        self._bytes -= self._unacked.pop(tag, 0)
        if self._channel.is_open:
            self._channel.basic_ack(tag, multiple=and_earlier)

    def cancel(self) -> None:
        """No more deliveries: what is already on its way goes back to the queue. Acks go on working."""
        if self._channel.is_open:
            self._channel.basic_cancel(self._tag)

    def _consume(self, consuming: Callable[[Any], None] | None = None) -> None:
        self._seen = self._largest = 0
        self._channel.basic_qos(prefetch_count=self._prefetch)
        self._tag = self._channel.basic_consume(
            self._queue, self._received, exclusive=self._exclusive, callback=consuming
        )

    def _received(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        if self._most_bytes is not None:
            self._count(method.delivery_tag, len(body), self._most_bytes)
        try:
            delivery = _delivery(method, properties, body)
        except UnreadableProperties as e:
            log.warning("Dropped a message from queue %s: %s", printable(self._queue, _LONGEST_LOGGED), e)
            self.ack(method.delivery_tag)
            return
        self._receive(delivery)

    def _count(self, tag: int, size: int, most_bytes: int) -> None:
        self._unacked[tag] = size
        self._bytes += size
        self._seen += 1
        self._largest = max(self._largest, size)
        fitting = max(FEWEST, min(self._most, most_bytes // max(1, self._largest)))
        if self._bytes > most_bytes and fitting < self._prefetch:
            self._calm, self._calm_needed = 0, CALM
            self._change(fitting)
        elif self._seen >= self._prefetch:
            self._seen = self._largest = 0
            more = fitting >= 2 * self._prefetch or fitting == self._most > self._prefetch
            self._calm = self._calm + 1 if more else 0
            if self._calm >= self._calm_needed:
                self._change(fitting)

    def _change(self, prefetch: int) -> None:
        if self._channel.is_open:
            self._prefetch = prefetch
            self.cancel()
            self._consume()


def _delivery(method: Any, properties: Any, body: bytes) -> Delivery:
    """Makes a delivery of what pika has read.

    Raises:
        UnreadableProperties: it must not be handed on; the text says who sent it and why.
    """
    found = problem(method, properties)
    if found is not None:
        raise UnreadableProperties(f"{found} (routing key {printable(str(method.routing_key), _LONGEST_LOGGED)})")
    return Delivery(
        tag=method.delivery_tag,
        body=body,
        content_type=properties.content_type,
        timestamp=properties.timestamp,
        headers=properties.headers or {},
        redelivered=method.redelivered,
        routing_key=method.routing_key,
    )
