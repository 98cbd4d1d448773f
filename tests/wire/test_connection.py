"""The AMQP connection against a real broker."""

from __future__ import annotations

import asyncio

import pytest

from lab.broker import PrivateBroker
from lab.proxy import Proxy
from tests.wire.session import run, target
from wire.connection import Connection
from wire.consumer import Delivery
from wire.errors import AccessRefused, BrokerError, ConnectionLost, Unreachable

pytestmark = pytest.mark.system


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


def test_a_silent_cut_is_noticed(broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by who waits for the broker's word on a message: it fails, instead of waiting for ever."""
    monkeypatch.setattr("wire.connection.HEARTBEAT", 2)

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
