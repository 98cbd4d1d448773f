"""The inbox between a consumer, a journal on disk, an outbox and an engine that does as it is told."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.waiting import aiountil
from tests.uep.broker.stubs import TARGET, StubConsumer, StubEngine, StubPublisher, delivery
from uep.audit import Audit
from uep.broker import inbox as inbox_module
from uep.broker import outbox as outbox_module
from uep.broker.dispatcher import Dispatcher
from uep.broker.inbox import Inbox
from uep.broker.outbox import Outbox
from uep.storage.journal import Journal
from uep.storage.opening import open_storage
from wire import messages, stop_request
from wire.consumer import Delivery

A, B, C = (str(uuid.UUID(int=n)) for n in (1, 2, 3))


@dataclass
class House:
    """An inbox and its neighbours."""

    inbox: Inbox
    outbox: Outbox
    journal: Journal
    engine: StubEngine
    stops: list[bool]
    consumer: StubConsumer = field(default_factory=StubConsumer)
    publisher: StubPublisher = field(default_factory=lambda: StubPublisher(confirms=True))

    def come(self, tag: int, task_id: str, **more: Any) -> None:
        self.consumer.unacked.add(tag)
        self.inbox.receive(delivery(tag, task_id, **more))

    async def runs(self, *task_ids: str) -> None:
        await aiountil(lambda: set(self.engine.running) == set(task_ids), f"{task_ids} to run")

    async def acked(self, *tags: int) -> None:
        await aiountil(lambda: self.consumer.acked == list(tags), f"{tags} to be acknowledged")


def play(
    directory: Path, game: Callable[[House], Awaitable[None]], journal: Callable[[Journal], Journal] = lambda real: real
) -> None:
    async def run() -> None:
        storage = open_storage(directory)
        used = journal(storage.journal)
        outbox = Outbox(used, storage.results, lambda task_id: None)
        engine = StubEngine(directory)
        dispatcher = Dispatcher(engine, Audit(None, pytest.fail))
        stops: list[bool] = []
        inbox = Inbox(dispatcher, used, outbox, storage.interrupted, lambda: stops.append(True))
        house = House(inbox, outbox, used, engine, stops)
        house.inbox.attach(house.consumer)  # type: ignore[arg-type]
        outbox.attach(house.publisher, TARGET)  # type: ignore[arg-type]
        await game(house)
        outbox.detach()

    asyncio.run(run())


class SlowJournal(Journal):
    """Notes nothing before it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may = threading.Event()

    def accept(self, task_ids: Collection[str]) -> None:
        assert self.may.wait(30)
        super().accept(task_ids)


class FullJournal(Journal):
    """Can be written again once `works`."""

    works = False

    def accept(self, task_ids: Collection[str]) -> None:
        if not self.works:
            raise OSError("disk full")
        super().accept(task_ids)


def test_a_task_is_acknowledged_when_it_is_in_the_journal(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        in_journal: list[bool] = []
        house.consumer = StubConsumer(lambda tag: in_journal.append(A in house.journal))
        house.inbox.attach(house.consumer)  # type: ignore[arg-type]
        house.come(1, A, resource_specification='{"num_nodes": 2}', result_serializers=["some.Strategy"])
        await house.runs(A)
        await house.acked(1)
        assert in_journal == [True]
        (request,) = house.engine.requests
        assert (request.task_id, request.resource_specification) == (A, {"num_nodes": 2})
        assert request.result_serializers == ("some.Strategy",)
        assert messages.unpack(request.body) == messages.Task(A, "buffer")
        house.engine.end(A, "42")
        await aiountil(lambda: A not in house.journal, "the task to be crossed out")
        assert house.publisher.results()[A].data == "42"
        await house.inbox.emptied()

    play(tmp_path, game)


def test_what_came_before_there_was_a_consumer_waits_for_it(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.inbox.detach()
        house.come(1, A)
        assert house.inbox.received == 0
        house.inbox.attach(house.consumer)  # type: ignore[arg-type]
        await house.runs(A)

    play(tmp_path, game)


def test_a_message_that_asks_to_stop_is_heard_at_once(tmp_path: Path) -> None:
    """Also when there is no room for the tasks before it, and one that came before there was a consumer."""

    async def game(house: House) -> None:
        stop = Delivery(9, b"", headers=dict(stop_request.HEADERS))
        house.consumer.unacked.add(9)
        house.inbox.detach()
        house.inbox.receive(stop)
        assert house.stops == []
        house.inbox.attach(house.consumer)  # type: ignore[arg-type]
        assert (house.stops, house.consumer.acked) == ([True], [9])
        house.come(1, A, command="stop")
        await house.runs(A)
        assert house.stops == [True], "a task is a task, whatever else is in its headers"
        house.inbox.close()
        house.inbox.receive(stop)
        assert house.stops == [True]

    play(tmp_path, game)


def test_what_waits_goes_with_the_session_and_comes_again_with_the_next(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.inbox.detach()
        house.come(1, A)
        house.inbox.detach()
        house.consumer = StubConsumer()
        house.inbox.attach(house.consumer)  # type: ignore[arg-type]
        assert house.inbox.received == 0
        house.come(1, A)
        await house.runs(A)
        await house.acked(1)

    play(tmp_path, game)


def test_a_second_delivery_is_acknowledged_and_not_run(tmp_path: Path) -> None:
    """Of a task that runs, of one whose result is on its way, and of one whose result the broker has."""

    async def game(house: House) -> None:
        house.publisher = StubPublisher()
        house.outbox.attach(house.publisher, TARGET)  # type: ignore[arg-type]
        house.come(1, A)
        await house.runs(A)
        house.come(2, A)
        await house.acked(1, 2)
        house.engine.end(A)
        await aiountil(lambda: house.publisher.sent, "the result to be sent")
        house.come(3, A)
        await house.acked(1, 2, 3)
        house.publisher.sent[0][1].set_result(None)
        await house.outbox.flushed()
        house.come(4, A)
        await house.acked(1, 2, 3, 4)
        assert len(house.engine.requests) == house.inbox.received == 1

    play(tmp_path, game)


def test_a_message_without_a_task_id_is_thrown_away(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.come(1, A, task_uuid="none", body=b"rubbish")
        await house.acked(1)
        house.come(2, B, task_uuid=None)  # its body has one
        await house.runs(B)
        assert house.inbox.received == 1

    play(tmp_path, game)


@pytest.mark.parametrize(("limit", "value"), [("MOST_IN_FLIGHT", 2), ("MOST_BYTES_IN_FLIGHT", 150)])
def test_no_more_in_flight_than_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(inbox_module, limit, value)

    async def game(house: House) -> None:
        for tag, task_id in enumerate((A, B, C), 1):
            house.come(tag, task_id, body=b"x" * 100)
        await house.runs(A, B)
        await house.acked(1, 2)
        house.engine.end(A)
        await house.runs(B, C)
        await house.acked(1, 2, 3)

    play(tmp_path, game)


def test_while_the_outbox_is_crowded_nothing_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MOST_RESULTS", 1)

    async def game(house: House) -> None:
        house.publisher = StubPublisher()
        house.outbox.attach(house.publisher, TARGET)  # type: ignore[arg-type]
        house.come(1, A)
        await house.runs(A)
        house.engine.end(A)
        await aiountil(lambda: house.publisher.sent, "the result to be sent")
        house.come(2, B)
        assert house.inbox.received == 1
        house.publisher.sent[0][1].set_result(None)
        await house.runs(B)

    play(tmp_path, game)


def test_closed_it_takes_nothing(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.come(1, A)
        await house.runs(A)
        house.inbox.close()
        assert house.consumer.cancelled
        house.come(2, B)
        house.engine.end(A)
        await house.inbox.emptied()
        assert house.inbox.received == 1
        assert house.consumer.unacked == {2}

    play(tmp_path, game)


def test_abandoned_tasks_are_answered_and_their_own_results_ignored(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.come(1, A)
        await house.runs(A)
        assert house.inbox.abandon() == 1
        house.engine.end(A)
        await house.inbox.emptied()
        await house.outbox.flushed()
        assert len(house.publisher.sent) == 1
        assert "endpoint stopped before" in house.publisher.results()[A].data

    play(tmp_path, game)


def test_what_is_being_noted_when_all_is_abandoned_belongs_to_the_successor(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.come(1, A)
        assert house.inbox.abandon() == 0
        house.journal.may.set()  # type: ignore[attr-defined]
        await aiountil(lambda: A in house.journal, "the task to be noted")
        house.come(2, B)
        await aiountil(lambda: B in house.journal, "another to be noted, after the first")
        assert (house.consumer.acked, house.engine.requests, house.publisher.sent) == ([], [], [])

    play(tmp_path, game, lambda real: SlowJournal(tmp_path / "slow"))


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    """Tasks run, and are acknowledged, by their newest delivery, when the broker has their results."""

    async def game(house: House) -> None:
        house.come(1, A)
        await house.runs(A)
        house.come(2, A)
        house.come(3, B)
        await house.runs(A, B)
        assert house.consumer.acked == []
        house.engine.end(A)
        await house.acked(2)
        house.journal.works = True  # type: ignore[attr-defined]
        house.come(4, C)
        await house.acked(2, 4)
        house.engine.end(B)
        await house.acked(2, 4, 3)

    play(tmp_path, game, lambda real: FullJournal(tmp_path / "full"))


def test_tasks_that_an_earlier_endpoint_left_are_answered(tmp_path: Path) -> None:
    Journal(tmp_path / "open_tasks").accept([A, B])

    async def game(house: House) -> None:
        assert house.inbox.received == 2
        await house.outbox.flushed()
        assert all("endpoint stopped before" in result.data for result in house.publisher.results().values())
        assert len(house.journal) == 0
        house.come(1, A)
        await house.acked(1)
        assert house.engine.requests == []

    play(tmp_path, game)


def test_a_dead_engine_is_given_no_tasks(tmp_path: Path) -> None:
    """Neither what comes, nor what was being noted when it died: both stay with the broker, and off the journal."""

    async def game(house: House) -> None:
        house.come(1, A)
        house.engine.failure = "gone"
        house.come(2, B)
        await house.inbox.emptied()
        assert house.inbox.waiting == 2
        assert (house.consumer.acked, house.engine.requests, len(house.journal)) == ([], [], 0)

    play(tmp_path, game)
