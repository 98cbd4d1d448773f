"""The AMQP connection against a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lab.broker import PrivateBroker
from lab.proxy import Proxy
from tests.wire.sessions import run
from wire import amqp
from wire.amqp import (
    AccessRefused,
    BrokerError,
    Connection,
    ConnectionLost,
    Delivery,
    NotDelivered,
    Unreachable,
    stay_connected,
)
from wire.queues import Target

pytestmark = pytest.mark.system


def target(queue: str, **changes: Any) -> Target:
    """Publishes straight into `queue`, through the default exchange."""
    fields = {"connection_url": "", "exchange": "", "routing_key": queue, "properties": {"content_type": "text/plain"}}
    return Target(**{**fields, **changes})


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


def test_a_refused_operation_costs_the_connection_and_says_why(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        with pytest.raises(ConnectionLost, match="no queue 'no-such-queue'"):
            await connection.consume("no-such-queue", lambda _: None, prefetch=1)
        assert connection.lost.is_set()
        with pytest.raises(ConnectionLost):
            await connection.publisher()

    run(broker, session)


def test_a_handler_that_fails_costs_the_connection(broker: PrivateBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def session(connection: Connection, queue: str) -> None:
        def broken(_: Delivery) -> None:
            raise KeyError("bug")

        publisher = await connection.publisher()
        await publisher.publish(target(queue), b"x")
        await connection.consume(queue, broken, prefetch=1)
        await connection.lost.wait()
        assert "not handled" in str(connection.reason)

    run(broker, session)
    assert "bug" in caplog.text


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("amqp://hub:wrong-password@127.0.0.1:{port}/%2F", AccessRefused),
        ("amqp://hub:hunter2@127.0.0.1:1/%2F", Unreachable),
        ("amqp://hub:hunter2@no-such-host.invalid/%2F", Unreachable),
        ("amqps://hub:hunter2@127.0.0.1:{port}/%2F", Unreachable),
    ],
)
def test_why_there_is_no_connection(broker: PrivateBroker, url: str, error: type[BrokerError]) -> None:
    with pytest.raises(error) as caught:
        asyncio.run(Connection.open(url.format(port=broker.port)))
    assert "hunter2" not in str(caught.value)
    assert "password@" not in str(caught.value)


def test_a_lost_connection_is_made_again(broker: PrivateBroker) -> None:
    """Loses it twice in the middle of a session; the third session comes to its end."""
    sessions: list[Connection] = []
    troubles: list[str] = []

    async def session(connection: Connection) -> None:
        sessions.append(connection)
        if len(sessions) < 3:
            connection.abandon(ConnectionLost(f"cut {len(sessions)}"))
            await asyncio.sleep(10)

    async def work() -> None:
        await asyncio.wait_for(
            stay_connected(lambda: Connection.open(broker.url), session, lambda e, _: troubles.append(str(e))), 20
        )

    asyncio.run(work())
    assert troubles == ["cut 1", "cut 2"]
    assert all(connection.lost.is_set() for connection in sessions)


def test_waits_grow_and_begin_small_again_after_a_good_connection(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was there until a moment ago is tried again at once; one that stays away, ever more seldom."""
    monkeypatch.setattr(amqp, "STABLE", 0.5)
    waits: list[list[float]] = [[]]

    async def session(connection: Connection) -> None:
        waits.append([])
        await asyncio.Event().wait()

    async def work(network: Proxy) -> None:
        url = broker.url.replace(f":{broker.port}/", f":{network.port}/")
        network.cut()
        staying = asyncio.ensure_future(
            stay_connected(lambda: Connection.open(url), session, lambda _, wait: waits[-1].append(wait))
        )
        for outage in range(3):
            while len(waits[outage]) < 4:
                await asyncio.sleep(0.01)
            network.resume()
            while len(waits) < outage + 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            network.cut()
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)

    with Proxy(broker.port) as network:
        asyncio.run(asyncio.wait_for(work(network), 120))
    ceilings = [0.2, 0.4, 0.8, 1.6]
    for outage in waits[:3]:
        assert all(c / 2 <= wait <= c for wait, c in zip(outage, ceilings, strict=False)), waits
    assert len({wait for outage in waits[:3] for wait in outage[:1]}) == 3, "with jitter"


def test_waits_go_on_growing_when_sessions_do_not_last(broker: PrivateBroker) -> None:
    waits: list[float] = []

    async def session(connection: Connection) -> None:
        if len(waits) < 5:
            connection.abandon(ConnectionLost("refused"))
            await asyncio.sleep(10)

    asyncio.run(stay_connected(lambda: Connection.open(broker.url), session, lambda _, wait: waits.append(wait)))
    assert all(c / 2 <= wait <= c for wait, c in zip(waits, [0.2, 0.4, 0.8, 1.6, 3.2], strict=True))


def test_a_silent_cut_is_noticed(broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by who waits for the broker's word on a message: it fails, instead of waiting for ever."""
    monkeypatch.setattr(amqp, "HEARTBEAT", 2)

    async def work(network: Proxy) -> None:
        connection = await Connection.open(broker.url.replace(f":{broker.port}/", f":{network.port}/"))
        publisher = await connection.publisher()
        network.stall()
        with pytest.raises(ConnectionLost, match="missed heartbeats"):
            await asyncio.wait_for(publisher.publish(target("queue"), b"x"), 60)
        assert connection.lost.is_set()
        await asyncio.wait_for(connection.close(), 60)

    with Proxy(broker.port) as network:
        asyncio.run(work(network))
