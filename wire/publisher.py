"""Publishes over one channel, and learns from the broker what it has taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pika

from wire.errors import NotDelivered, Refused
from wire.pending import PendingAnswers, fail, succeed
from wire.queues import Target


class Publisher:
    """A channel in confirm mode, made by `Connection.publisher`. `send` does not wait; `publish` awaits the confirm."""

    def __init__(self, channel: Any, pending: PendingAnswers) -> None:
        self._channel = channel
        self._pending = pending
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
        confirmed: asyncio.Future[None] = self._pending.future()
        if self._pending.lost.is_set() or not self._channel.is_open:
            fail(confirmed, self._pending.reason)
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
                succeed(confirmed, None)
            else:
                fail(confirmed, Refused("the broker refused the message"))

    def _on_return(self, _: Any, method: Any, properties: Any, __: bytes) -> None:
        confirmed = self._unconfirmed.pop(int(properties.message_id), None)
        if confirmed is not None:
            where = f"exchange {method.exchange}, routing key {method.routing_key}"
            fail(confirmed, NotDelivered(f"the broker has no queue for the message ({where})"))
