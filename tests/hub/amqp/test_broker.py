"""The hub's connection against a real RabbitMQ: what it declares, hands over in batches, and survives."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from sqlalchemy.exc import OperationalError

from hub.amqp import topology
from hub.amqp.broker import Broker
from lab.waiting import aiountil
from tests.hub.units import new_id, run
from wire.connection import Connection
from wire.errors import ConnectionLost, NotDelivered

pytestmark = pytest.mark.system


class Queue:
    """A queue with a handler that keeps the bodies it was given, by batch."""

    def __init__(self) -> None:
        self.name = new_id()
        self.batches: list[list[bytes]] = []
        self.failures: list[Exception] = []

    async def handle(self, batch):
        if self.failures:
            raise self.failures.pop()
        bodies = [delivery.body for delivery in batch]
        if b"indigestible" in bodies:
            raise ValueError("cannot digest it")
        self.batches.append(bodies)

    @property
    def bodies(self):
        return [body for batch in self.batches for body in batch]


def play(url, scenario):
    """Runs `scenario(broker, queue)` while connected; the state at each connection made, and the broker afterwards."""

    async def work():
        broker, queue = Broker(url), Queue()
        first = await Connection.open(url)
        channel = await first.channel()
        declared = asyncio.Event()
        expires = {"x-expires": 60_000}  # milliseconds without a consumer: nobody has to delete it
        channel.queue_declare(queue.name, durable=True, arguments=expires, callback=lambda _: declared.set())
        await declared.wait()
        connected = []

        async def on_connected():
            connected.append(broker.connected.is_set())

        running = asyncio.ensure_future(broker.run(first, {queue.name: queue.handle}, on_connected))
        try:
            await asyncio.wait_for(broker.connected.wait(), 30)
            await scenario(broker, queue)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return connected, broker

    return run(work())


def to(queue):
    return topology.target(queue, "text/plain")


def test_what_is_published_is_handed_over_once(broker):
    async def scenario(hub_broker, queue):
        bodies = [b"%d" % n for n in range(300)]
        await asyncio.gather(*(hub_broker.send(to(queue.name), body) for body in bodies))
        await aiountil(lambda: len(queue.bodies) >= 300, "all messages")
        assert queue.bodies == bodies, "in order"
        assert len(queue.batches) < 300, "in batches"

    connected, _ = play(broker.url, scenario)
    assert connected == [True]


def test_what_is_declared_for_endpoints_and_clients(broker):
    async def scenario(hub_broker, _):
        queue = topology.task_queue(new_id())
        assert await hub_broker.declare_queue(queue) == (0, 0)
        await hub_broker.send(to(queue), b"x")
        assert await hub_broker.declare_queue(queue) == (1, 0)
        await hub_broker.delete_queue(queue)
        with pytest.raises(NotDelivered):
            await hub_broker.send(to(queue), b"x")
        group = topology.client_queue_prefix(new_id()) + new_id()
        for _ in range(2):
            await hub_broker.declare_client_queue(group)
        await hub_broker.send(to(group), b"x")
        await hub_broker.delete_queue(group)

    play(broker.url, scenario)


def test_the_sole_reader_of_a_queue_drops_what_lies_in_it(broker):
    async def scenario(hub_broker, _):
        queue = topology.task_queue(new_id())
        await hub_broker.declare_queue(queue)
        await asyncio.gather(*(hub_broker.send(to(queue), b"x") for _ in range(5)))
        async with hub_broker.sole_reader(queue) as alone:
            assert alone
            async with hub_broker.sole_reader(queue) as second:
                assert not second
        assert await hub_broker.declare_queue(queue) == (0, 0)
        await asyncio.gather(*(hub_broker.send(to(queue), b"x") for _ in range(5)))
        with pytest.raises(OSError, match="full"):
            async with hub_broker.sole_reader(queue):
                raise OSError("the disk is full")
        other = await Connection.open(broker.url)
        taken = []
        await other.consume(queue, taken.append, prefetch=2)
        async with hub_broker.sole_reader(queue) as alone:
            assert not alone
        await aiountil(lambda: len(taken) == 2, "messages for the other reader")
        assert await hub_broker.declare_queue(queue) == (3, 1)
        await other.close()

    play(broker.url, scenario)


def test_a_message_that_nobody_can_digest_is_dropped_alone(broker, caplog):
    async def scenario(hub_broker, queue):
        for body in (b"a", b"indigestible", b"b"):
            await hub_broker.send(to(queue.name), body)
        await aiountil(lambda: len(queue.bodies) >= 2, "the others")
        assert queue.bodies == [b"a", b"b"]

    play(broker.url, scenario)
    assert [record.exc_info for record in caplog.records if "Dropped a message" in record.getMessage()] == [None]


@pytest.mark.parametrize(
    ("failure", "connections"),
    [(OperationalError("INSERT", {}, Exception("disk is full")), 1), (ConnectionLost("cut"), 2)],
    ids=["database", "broker"],
)
def test_what_could_not_be_kept_comes_again(broker, failure, connections):
    """The messages stay in RabbitMQ until they are stored, over a lost connection, too."""

    async def scenario(hub_broker, queue):
        queue.failures.append(failure)
        with contextlib.suppress(ConnectionLost):  # the confirm may be lost with the connection, the message is not
            await hub_broker.send(to(queue.name), b"kept")
        await aiountil(lambda: queue.bodies == [b"kept"], "the message to come again")
        assert not queue.failures

    connected, _ = play(broker.url, scenario)
    # What the database refuses is tried again where it is: the broker counts how often it delivers a message.
    assert connected == [True] * connections


def test_nothing_can_be_done_before_and_after_a_connection(broker):
    async def nothing(hub_broker, queue):
        pass

    async def closed(hub_broker):
        assert not hub_broker.connected.is_set()
        for call in (hub_broker.declare_queue, hub_broker.declare_client_queue, hub_broker.delete_queue):
            with pytest.raises(ConnectionLost):
                await call("q")
        with pytest.raises(ConnectionLost):
            hub_broker.send(to("q"), b"x")

    _, ended = play(broker.url, nothing)
    for hub_broker in (ended, Broker(broker.url)):
        run(closed(hub_broker))


def test_a_call_under_way_when_the_connection_is_lost_fails(broker):
    async def work():
        hub_broker = Broker(broker.url)
        connection = await Connection.open(broker.url)
        try:
            await hub_broker._begin(connection)
            calls = [asyncio.ensure_future(hub_broker.declare_queue(topology.COMMANDS + new_id())) for _ in range(3)]
            await asyncio.sleep(0)  # sends them
            hub_broker._end()
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await connection.close()

    assert all(isinstance(end, ConnectionLost) for end in run(work()))


def test_an_answer_that_nobody_waits_for_any_more_is_not_given_twice(broker):
    """One that was given up in the same moment as the connection was lost ended the hub."""

    async def work():
        hub_broker = Broker(broker.url)
        connection = await Connection.open(broker.url)
        try:
            await hub_broker._begin(connection)
            call = asyncio.ensure_future(hub_broker.declare_queue(topology.COMMANDS + new_id()))
            await asyncio.sleep(0)  # sends it
            (answer,) = hub_broker._answers
            answer.cancel()
            hub_broker._end()
            with pytest.raises(asyncio.CancelledError):
                await call
        finally:
            await connection.close()

    run(work())
