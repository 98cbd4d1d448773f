"""Commands from a queue to who handles them, and their acknowledgement; the broker and the handler are stubs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mep.request.refusal import UNEXPECTED, Refusal
from mep.request.start_endpoint import StartEndpoint
from mep.worker import commands
from mep.worker.consumer import MOST_BYTES, PREFETCH, CommandConsumer
from tests.mep.commands import COMMAND, UEP, delivery


class Broker:
    """Stands for a connection and its consumer: gives deliveries, and notes what is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.consumed: tuple[str, int] | None = None
        self.deliver: Callable[[Any], None]

    async def consume(
        self, queue: str, on_delivery: Callable[[Any], None], *, prefetch: int, most_bytes: int
    ) -> Broker:
        self.consumed = (queue, prefetch, most_bytes)
        self.deliver = on_delivery
        return self

    def ack(self, tag: int) -> None:
        self.acknowledged.append(tag)


class Requests:
    """Notes what comes; a request ends when `go_on` is set."""

    def __init__(self) -> None:
        self.handled: list[StartEndpoint] = []
        self.rejected: list[tuple[Refusal, bytes]] = []
        self.come = asyncio.Event()
        self.go_on = asyncio.Event()

    async def handle(self, command: StartEndpoint) -> None:
        self.handled.append(command)
        self.come.set()
        await self.go_on.wait()

    async def reject(self, refusal: Refusal, request_id: str, credentials: bytes) -> None:
        self.rejected.append((refusal, credentials))
        self.come.set()


def run(test: Callable[[CommandConsumer, Broker, Requests], Awaitable[None]]) -> None:
    """Runs a test while a session consumes."""

    async def consume() -> None:
        broker, requests, consuming = Broker(), Requests(), asyncio.Event()
        consumer = CommandConsumer(None, requests)
        session = asyncio.ensure_future(consumer.session(broker, "commands", consuming.set))  # type: ignore[arg-type]
        await consuming.wait()
        assert broker.consumed == ("commands", PREFETCH, MOST_BYTES)
        await test(consumer, broker, requests)
        session.cancel()

    asyncio.run(consume())


def test_a_command_is_acknowledged_when_it_has_come_to_its_end() -> None:
    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        broker.deliver(delivery(COMMAND))
        await requests.come.wait()
        assert [command.endpoint_id for command in requests.handled] == [UEP]
        assert broker.acknowledged == []
        requests.go_on.set()
        await consumer.finish(5.0)
        assert broker.acknowledged == [1]

    run(test)


def test_what_is_no_command_is_rejected_and_acknowledged_with_the_credentials_that_it_has() -> None:
    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        broker.deliver(delivery({**COMMAND, "command": "cmd_rm"}))
        broker.deliver(delivery(b"garbage"))
        while len(broker.acknowledged) < 2:
            await asyncio.sleep(0)
        (first, credentials), (second, nothing) = requests.rejected
        assert first.stage == second.stage == "command"
        assert json.loads(credentials) == COMMAND["kwargs"]["amqp_creds"]
        assert nothing == b""
        assert requests.handled == []

    run(test)


def test_what_comes_after_the_end_is_left_to_the_next_manager() -> None:
    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        await consumer.finish(5.0)
        broker.deliver(delivery(COMMAND))
        for _ in range(10):
            await asyncio.sleep(0)
        assert requests.handled == []
        assert broker.acknowledged == []

    run(test)


def test_a_request_that_does_not_end_is_given_up_and_not_acknowledged() -> None:
    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        broker.deliver(delivery(COMMAND))
        await requests.come.wait()
        await consumer.finish(0.0)
        assert broker.acknowledged == []

    run(test)


def test_requests_have_ids_of_their_own() -> None:
    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        requests.go_on.set()
        for _ in range(50):
            broker.deliver(delivery(COMMAND))
        while len(broker.acknowledged) < 50:
            await asyncio.sleep(0)
        assert len({command.request_id for command in requests.handled}) == 50

    run(test)


def test_a_fault_of_ours_is_told_and_not_only_acknowledged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> StartEndpoint:
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "decode", broken)

    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        broker.deliver(delivery(COMMAND))
        await requests.come.wait()
        ((refusal, credentials),) = requests.rejected
        assert refusal is UNEXPECTED
        assert json.loads(credentials) == COMMAND["kwargs"]["amqp_creds"]

    run(test)
    assert "ZeroDivisionError" in caplog.text


def test_a_handler_that_forgets_its_cancellation_is_cancelled_again() -> None:
    async def test(consumer: CommandConsumer, broker: Broker, requests: Requests) -> None:
        async def forgetful(_command: StartEndpoint) -> None:
            requests.come.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(3600)

        requests.handle = forgetful  # type: ignore[method-assign]
        broker.deliver(delivery(COMMAND))
        await requests.come.wait()
        await consumer.finish(0.0)
        assert broker.acknowledged == []

    run(test)
