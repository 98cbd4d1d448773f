"""What the broker sends ahead of acknowledgements, in messages and in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lab.broker import PrivateBroker
from tests.wire.sessions import run
from wire.amqp import Connection, Delivery, Publisher
from wire.consumer import FEWEST
from wire.queues import Target

pytestmark = pytest.mark.system

MOST = 100
BUDGET = 100_000
LARGE = BUDGET // 4


class Queue:
    """A queue with a publisher, and a consumer that keeps what comes until it is told to acknowledge."""

    def __init__(self, connection: Connection, name: str, publisher: Publisher) -> None:
        self.connection = connection
        self.name = name
        self.publisher = publisher
        self.held: list[Delivery] = []
        self.order: list[bytes] = []
        self.most_bytes = 0

    async def fill(self, *bodies: bytes) -> None:
        target = Target("", "", self.name)
        await asyncio.gather(*(self.publisher.send(target, body) for body in bodies))

    async def consume(self) -> None:
        self.consumer = await self.connection.consume(
            self.name, self._received, prefetch=MOST, most_bytes=BUDGET, exclusive=True
        )

    def _received(self, delivery: Delivery) -> None:
        self.held.append(delivery)
        self.order.append(delivery.body[:8])
        self.most_bytes = max(self.most_bytes, sum(len(d.body) for d in self.held))

    def acknowledge(self) -> None:
        held, self.held = self.held, []
        for delivery in held:
            self.consumer.ack(delivery.tag)

    async def settled(self) -> int:
        """How many are held once no more come."""
        count = -1
        while count != len(self.held):
            count = len(self.held)
            await asyncio.sleep(0.3)
        return count

    async def drain(self, count: int) -> None:
        """Acknowledges what comes until so many messages have come in all."""
        while len(self.order) < count:
            self.acknowledge()
            await asyncio.sleep(0.01)
        self.acknowledge()


def play(broker: PrivateBroker, script: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
    async def session(connection: Connection, name: str) -> None:
        await script(Queue(connection, name, await connection.publisher()))

    run(broker, session, 60, exclusive=True)  # not auto_delete: the queue would go whenever nobody consumes


def numbered(count: int, size: int, first: int = 0) -> list[bytes]:
    return [b"%08d" % n + bytes(size - 8) for n in range(first, first + count)]


def test_small_messages_come_in_numbers(broker: PrivateBroker) -> None:
    async def script(queue: Queue) -> None:
        await queue.fill(*numbered(3 * MOST, 10))
        await queue.consume()
        assert await queue.settled() <= MOST + FEWEST
        assert len(queue.held) >= MOST
        await queue.drain(3 * MOST)
        assert queue.order == [body[:8] for body in numbered(3 * MOST, 10)], "each once, in order"

    play(broker, script)


def test_large_messages_come_one_by_one(broker: PrivateBroker) -> None:
    async def script(queue: Queue) -> None:
        await queue.fill(*numbered(5 * FEWEST, LARGE))
        await queue.consume()
        assert await queue.settled() == FEWEST
        await queue.drain(5 * FEWEST)
        assert queue.most_bytes <= BUDGET + FEWEST * LARGE

    play(broker, script)


def test_large_messages_after_small_ones_and_again(broker: PrivateBroker) -> None:
    """Whatever comes, in which order ever: each message once, and not too many bytes at a time."""

    async def script(queue: Queue) -> None:
        await queue.consume()
        sent = 0
        for count, size in ((2 * MOST, 10), (2 * MOST, LARGE), (3 * MOST, 10), (MOST, LARGE), (MOST, 2000)):
            await queue.fill(*numbered(count, size, sent))
            sent += count
            await queue.settled()
            await queue.drain(sent)
        assert sorted(queue.order) == [b"%08d" % n for n in range(sent)]
        assert queue.most_bytes <= BUDGET + (FEWEST + 1) * LARGE

    play(broker, script)


def test_what_is_on_its_way_when_deliveries_end_goes_back(broker: PrivateBroker) -> None:
    async def script(queue: Queue) -> None:
        await queue.consume()
        await queue.fill(*numbered(FEWEST, 10))
        await queue.settled()
        queue.acknowledge()
        queue.consumer.cancel()
        await queue.fill(*numbered(5, 10, FEWEST))
        assert await queue.settled() == 0
        await queue.consume()
        assert await queue.settled() == 5

    play(broker, script)
