"""The worker against a real broker that does not want it any more, and a service that says what is to be done then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lab.broker import PrivateBroker
from lab.waiting import aiountil
from mep.request.unwanted import EndpointUnwanted
from mep.worker import instances
from mep.worker.consumer import CommandConsumer
from mep.worker.heartbeats import Heartbeats
from mep.worker.worker import Addresses, Worker
from tests.mep.commands import MANAGER
from tests.wire.session import target
from wire.connection import Connection
from wire.errors import ConnectionLost, Unreachable
from wire.queues import Source

pytestmark = pytest.mark.system


class Site:
    """A worker, whoever listens to it, and a service that gives what is put into `answers`, one after the other."""

    def __init__(self, broker: PrivateBroker, known: Addresses) -> None:
        self.broker = broker
        self.answers: list[Addresses | Exception] = []
        self.consuming = 0
        self.reasons: list[str] = []
        self.others: list[int] = []
        consumer, heartbeats = CommandConsumer(None, None), Heartbeats(MANAGER, lambda: 0.1)  # type: ignore[arg-type]
        self.worker = Worker(known, self.renew, consumer, heartbeats)

    async def renew(self) -> Addresses:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connected(self) -> None:
        self.consuming += 1

    def not_connected(self, reason: str) -> None:
        self.reasons.append(reason)

    def shared(self, others: int) -> None:
        self.others.append(others)


def addresses(broker: PrivateBroker, queue: str, password: str | None = None) -> Addresses:
    url = broker.url if password is None else f"amqp://nobody:{password}@127.0.0.1:{broker.port}/%2F"
    return Addresses(Source(url, queue), target(f"{queue}.beats", connection_url=url))


def run(
    broker: PrivateBroker,
    known: Callable[[str], Addresses],
    test: Callable[[Site, Any, list[str]], Awaitable[None]],
) -> None:
    """Runs a test with two pairs of queues, for commands and heartbeats, and a channel to do things to them."""
    names = [uuid.uuid4().hex, uuid.uuid4().hex]

    async def work() -> None:
        connection = await Connection.open(broker.url)
        channel = await connection.channel()
        try:
            for name in names:
                for queue in (name, f"{name}.beats"):
                    await _done(lambda done, queue=queue: channel.queue_declare(queue, callback=done))
            site = Site(broker, known(names[0]))
            await asyncio.wait_for(test(site, channel, names), 60)
        finally:
            for name in names:
                for queue in (name, f"{name}.beats"):
                    await _done(lambda done, queue=queue: channel.queue_delete(queue, callback=done))
            await connection.close()

    asyncio.run(work())


async def _done(call: Callable[[Callable[[Any], None]], object]) -> None:
    is_done = asyncio.Event()
    call(lambda _: is_done.set())
    await asyncio.wait_for(is_done.wait(), 10)


@contextlib.asynccontextmanager
async def running(site: Site) -> Any:
    sessions = site.worker.start(site)  # type: ignore[arg-type]
    try:
        yield sessions
    finally:
        await site.worker.finish(1.0, goodbye=True)
        await site.worker.close(5.0)


@pytest.mark.parametrize("which", ["", ".beats"], ids=["commands", "heartbeats"])
def test_a_queue_that_is_gone_has_both_sessions_move_to_the_new_ones(broker: PrivateBroker, which: str) -> None:
    async def test(site: Site, channel: Any, names: list[str]) -> None:
        new = addresses(broker, names[1])
        site.answers = [new]
        async with running(site):
            await aiountil(lambda: site.consuming == 1, "the first session")
            if which:  # a heartbeat for an exchange that is not there, as when the service has removed it
                object.__setattr__(site.worker._addresses.heartbeats, "exchange", "no-such-exchange")
            else:
                await _done(lambda done: channel.queue_delete(names[0], callback=done))
            await aiountil(lambda: site.consuming == 2, "a session with the new queue")
            await aiountil(lambda: site.worker._addresses is new, "the new addresses")
        assert site.answers == [], "asked once, for both"
        assert "the service is asked" in site.reasons[0]

    run(broker, lambda queue: addresses(broker, queue), test)


def test_a_password_that_is_refused_is_renewed_when_the_service_answers_again(broker: PrivateBroker) -> None:
    async def test(site: Site, channel: Any, names: list[str]) -> None:
        site.answers = [Unreachable("the service is away"), addresses(broker, names[0])]
        async with running(site):
            await aiountil(lambda: site.consuming == 1, "a session with the new password")
        assert any("refuses this user and password" in reason for reason in site.reasons)
        assert "the service is away" in site.reasons

    run(broker, lambda queue: addresses(broker, queue, "wrong"), test)


def test_another_instance_is_noticed_by_both_and_so_is_its_end(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is there for one look only may be ourselves, whom the broker has not missed yet."""
    for name in ("FIRST", "AGAIN", "PERIOD"):
        monkeypatch.setattr(instances, name, 0.01)

    async def test(site: Site, channel: Any, names: list[str]) -> None:
        known = addresses(broker, names[0])
        other = Site(broker, known)
        async with running(site):
            await aiountil(lambda: site.consuming == 1, "the first instance")
            async with running(other):
                await aiountil(lambda: site.others == other.others == [1], "both to notice")
            await aiountil(lambda: site.others == [1, 0], "that it has ended")
        assert caplog.text.count("1 more take the commands of this endpoint: another instance of it runs") == 2

    run(broker, lambda queue: addresses(broker, queue), test)


def test_one_look_makes_no_other_instance(broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([2, 1, 2, 3, 1])
    looked = asyncio.Event()

    async def count(commands: Source) -> int:
        found = next(counts, 0)
        if not found:
            looked.set()
            await asyncio.Event().wait()
        return found

    for name, pause in (("FIRST", 0.01), ("AGAIN", 0.02), ("PERIOD", 0.01)):
        monkeypatch.setattr(instances, name, pause)
    monkeypatch.setattr(instances, "probe", count)
    told: list[int] = []

    async def watch() -> None:
        watched = instances.Instances(lambda: Source("amqp://h", "q"), told.append)
        with watched.counting_us():
            watching = asyncio.ensure_future(watched.watch())
            await asyncio.wait_for(looked.wait(), 60)
            watching.cancel()

    asyncio.run(watch())
    assert told == [2, 0]


def test_a_loss_is_no_reason_to_ask_the_service(broker: PrivateBroker) -> None:
    async def test(site: Site, channel: Any, names: list[str]) -> None:
        async with running(site):
            await aiountil(lambda: site.consuming == 1, "the first session")
            for connection in list(site.worker._connections):
                connection.abandon(ConnectionLost("cut"))
            await aiountil(lambda: site.consuming == 2, "another session")
        assert site.answers == []

    run(broker, lambda queue: addresses(broker, queue), test)


def test_a_service_that_refuses_ends_the_sessions(broker: PrivateBroker) -> None:
    async def test(site: Site, channel: Any, names: list[str]) -> None:
        site.answers = [EndpointUnwanted(os.EX_DATAERR, "it has been deleted")] * 2
        async with running(site) as sessions:
            await asyncio.wait(sessions, return_when=asyncio.FIRST_COMPLETED)
            (error,) = {str(each.exception()) for each in sessions if each.done()}
            assert error == "it has been deleted"

    run(broker, lambda queue: addresses(broker, queue, "wrong"), test)
