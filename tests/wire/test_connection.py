"""The AMQP connection against a real broker."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from lab.broker import PrivateBroker
from lab.proxy import Proxy
from lab.waiting import aiountil
from tests.wire.session import run, target
from wire.connection import Connection
from wire.consumer import Delivery
from wire.errors import AccessRefused, BrokerError, ConnectionLost, QueueGone, Unreachable

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
    ("url", "error", "told"),
    [
        (
            "amqp://hub:wrong-password@127.0.0.1:{port}/%2F",
            AccessRefused,
            "the broker at 127.0.0.1 port {port} refuses this user and password",
        ),
        (
            "amqp://hub:hunter2@127.0.0.1:1/%2F",
            Unreachable,
            "at 127.0.0.1 port 1: connection refused; is the broker up",
        ),
        (
            "amqps://hub:hunter2@127.0.0.1:1/%2F",
            Unreachable,
            "at 127.0.0.1 port 1: connection refused; is the broker up",
        ),
        (
            "amqps://hub:hunter2@no-such-host.invalid",
            Unreachable,
            "at no-such-host.invalid port 5671: its name is not found",
        ),
        ("amqps://hub:hunter2@127.0.0.1:{port}/%2F", Unreachable, "at 127.0.0.1 port {port}: TLS failed"),
    ],
)
def test_why_there_is_no_connection(broker: PrivateBroker, url: str, error: type[BrokerError], told: str) -> None:
    with pytest.raises(error) as caught:
        asyncio.run(Connection.open(url.format(port=broker.port)))
    assert told.format(port=broker.port) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_what_takes_connections_and_never_answers(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.connection.OPEN_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        async def story() -> str:
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(Unreachable) as caught:
                await Connection.open(f"{scheme}://hub:hunter2@127.0.0.1:{port}/%2F")
            await aiountil(lambda: len(os.listdir("/proc/self/fd")) <= before, "its socket to be closed")
            return str(caught.value)

        told = asyncio.run(story())
    assert f"127.0.0.1 port {port}" in told
    assert "no answer" in told and "firewall" in told


def test_a_loss_names_the_broker(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        broker.ctl("close_all_connections", "--vhost", broker.vhost, "test")
        await connection.lost.wait()
        assert f"127.0.0.1 port {broker.port}" in str(connection.reason)

    run(broker, session)


def test_looking_for_a_queue_takes_nothing_and_disturbs_nobody(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        arrived: list[Delivery] = []
        consumer = await connection.consume(queue, arrived.append, prefetch=1, exclusive=True)
        publisher = await connection.publisher()
        for body in (b"one", b"two"):
            await publisher.publish(target(queue), body)
        await aiountil(lambda: len(arrived) == 1, "the first message")  # the second waits in the queue
        other = await Connection.open(broker.url)
        await other.look_for(queue)
        await other.look_for(queue)
        await other.close()
        assert not connection.lost.is_set()
        consumer.ack(arrived[0].tag)
        await aiountil(lambda: len(arrived) == 2, "the second message")
        assert [each.body for each in arrived] == [b"one", b"two"]

    run(broker, session)


def test_looking_for_a_queue_that_another_connection_has_for_itself(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        other = await Connection.open(broker.url)
        await other.look_for(queue)
        await other.close()

    run(broker, session, exclusive=True)


def test_looking_for_a_queue_that_is_gone(broker: PrivateBroker) -> None:
    async def session(connection: Connection, queue: str) -> None:
        with pytest.raises(QueueGone, match="no queue 'no-such-queue'"):
            await connection.look_for("no-such-queue")

    run(broker, session)


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


def test_who_is_cancelled_while_the_answer_comes_is_cancelled() -> None:
    """A session that goes on instead would hang whoever ends it, for ever."""

    async def scenario() -> None:
        answer = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(Connection("h port 1")._answer(answer, "an answer"))
        await asyncio.sleep(0)
        answer.set_result(None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())


def test_no_answer_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.connection.OPEN_TIMEOUT", 0.01)

    async def scenario() -> None:
        answer = asyncio.get_running_loop().create_future()
        with pytest.raises(Unreachable, match=r"h port 1 within 0\.01 s \(an answer\)"):
            await Connection("h port 1")._answer(answer, "an answer")
        assert answer.cancelled()

    asyncio.run(scenario())


def test_a_connection_whose_opening_is_cancelled_is_closed(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when it opens in the same turn of the loop: nobody else would close it."""
    opened: list[Any] = []
    really = Connection._opened

    def open_and_cancel(self: Connection, pika_connection: Any, future: asyncio.Future[None]) -> None:
        really(self, pika_connection, future)
        opened.append(pika_connection)
        opening.cancel()

    async def scenario() -> None:
        nonlocal opening
        opening = asyncio.ensure_future(Connection.open(broker.url))
        with pytest.raises(asyncio.CancelledError):
            await opening
        await aiountil(lambda: opened[0].is_closed, "the connection to be closed")

    opening: asyncio.Future[Connection]
    monkeypatch.setattr(Connection, "_opened", open_and_cancel)
    asyncio.run(scenario())
