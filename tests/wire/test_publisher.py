"""Messages to a real broker: confirmed, returned, and consumed again."""

from __future__ import annotations

import asyncio

import pytest

from lab.broker import PrivateBroker
from tests.wire.session import run, target
from wire.connection import Connection
from wire.consumer import Delivery
from wire.errors import NotDelivered

pytestmark = pytest.mark.system


def test_what_is_published_is_consumed_and_acked(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        publisher = await connection.publisher()
        await publisher.publish(target(queue), b"before")  # in the queue before anybody consumes
        consumer = await connection.consume(queue, arrived.put_nowait, prefetch=2)
        for number in range(3):
            await publisher.publish(target(queue), b"%d" % number)
        first, second = await arrived.get(), await arrived.get()
        assert (first.body, first.content_type, second.body) == (b"before", "text/plain", b"0")
        await asyncio.sleep(0.1)
        assert arrived.empty(), "no more than the prefetch are on their way"
        consumer.ack(first.tag)
        assert (await arrived.get()).body == b"1"

    run(broker, session)


def test_a_message_that_nobody_takes_is_an_error(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        publisher = await connection.publisher()
        with pytest.raises(NotDelivered, match="no queue"):
            await publisher.publish(target("no-such-queue"), b"lost")
        sent = [publisher.send(target(queue), b"x") for _ in range(100)]
        await asyncio.gather(*sent)

    run(broker, session)
