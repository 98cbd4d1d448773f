"""The outbox between a publisher that does as it is told and a real disk."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.waiting import aiountil
from tests.uep.broker.stubs import TARGET, StubPublisher
from uep.broker import courier
from uep.broker.outbox import Outbox
from uep.storage.journal import Journal
from uep.storage.result_store import ResultStore
from wire import messages
from wire.errors import ConnectionLost, NotDelivered, TooLarge

A, B, C = (str(uuid.UUID(int=n)) for n in (1, 2, 3))


class FullStore(ResultStore):
    """Can be written again once `works`."""

    works = False

    def put(self, results: Sequence[tuple[str, bytes]]) -> None:
        if not self.works:
            raise OSError(28, "No space left on device")
        super().put(results)


@dataclass
class House:
    """An outbox, its neighbours, and what it has told them."""

    outbox: Outbox
    journal: Journal
    store: ResultStore
    publisher: StubPublisher = field(default_factory=StubPublisher)
    forwarded: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def attach(self) -> None:
        self.publisher = StubPublisher()
        self.outbox.attach(self.publisher, TARGET)  # type: ignore[arg-type]

    async def sent(self, *bodies: bytes) -> None:
        """In any order."""
        await aiountil(
            lambda: sorted(body for body, _ in self.publisher.sent) == sorted(bodies), f"{bodies} to be sent"
        )


def play(
    directory: Path, game: Callable[[House], Awaitable[None]], make: Callable[[Path], ResultStore] = ResultStore
) -> None:
    async def run() -> None:
        journal, store, forwarded = Journal(directory / "journal"), make(directory / "results"), []
        house = House(Outbox(journal, store, forwarded.append), journal, store, forwarded=forwarded)
        house.outbox.when_removed(house.removed.extend)
        await game(house)
        house.outbox.detach()

    asyncio.run(run())


def test_from_put_to_removed(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.journal.accept([A])
        house.attach()
        house.outbox.put(A, b"one")
        assert A in house.outbox
        await house.sent(b"one")
        assert house.store.get(A) == b"one", "it was stored first"
        assert (house.forwarded, A in house.journal) == ([], True)
        house.publisher.sent[0][1].set_result(None)
        await house.outbox.flushed()
        assert (house.forwarded, house.removed) == ([A], [A])
        assert (len(house.store), len(house.journal), len(house.outbox)) == (0, 0, 0)

    play(tmp_path, game)


def test_what_is_left_is_sent_by_the_next_session_and_by_the_next_endpoint(tmp_path: Path) -> None:
    async def first(house: House) -> None:
        house.outbox.put(A, b"one")
        house.attach()
        await house.sent(b"one")
        house.publisher.sent[0][1].set_exception(ConnectionLost("gone"))
        house.outbox.detach()
        house.outbox.put(B, b"two")
        house.attach()
        await house.sent(b"one", b"two")

    async def second(house: House) -> None:
        assert len(house.outbox) == 2
        house.attach()
        await house.sent(b"one", b"two")

    play(tmp_path, first)
    play(tmp_path, second)


def test_what_cannot_be_stored_is_sent_all_the_same_and_stored_when_there_is_room(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.attach()
        house.outbox.put(A, b"one")
        await house.sent(b"one")
        house.outbox.detach()
        assert len(house.store) == 0
        house.store.works = True  # type: ignore[attr-defined]
        house.outbox.put(B, b"two")
        await aiountil(lambda: house.store.ids() == [B, A], "both to be stored")

    play(tmp_path, game, FullStore)


def test_a_result_that_the_broker_does_not_take_is_replaced(tmp_path: Path) -> None:
    async def game(house: House) -> None:
        house.attach()
        house.outbox.put(A, b"far too large")
        await house.sent(b"far too large")
        house.publisher.sent[0][1].set_exception(TooLarge("too large", 10))
        await aiountil(lambda: len(house.publisher.sent) == 2, "an error to be sent")
        instead = messages.unpack(house.publisher.sent[1][0])
        assert isinstance(instead, messages.Result)
        assert "no more than 10" in instead.data

    play(tmp_path, game)


def test_a_result_that_the_broker_refuses_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "AGAIN", 0.01)

    async def game(house: House) -> None:
        house.attach()
        house.outbox.put(A, b"one")
        await house.sent(b"one")
        house.publisher.sent[0][1].set_exception(NotDelivered("no queue"))
        await house.sent(b"one", b"one")
        house.publisher.sent[1][1].set_result(None)
        await house.outbox.flushed()

    play(tmp_path, game)


@pytest.mark.parametrize(("limit", "value"), [("MOST_SENT", 2), ("MOST_BYTES_SENT", 5)])
def test_only_so_much_is_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(courier, limit, value)

    async def game(house: House) -> None:
        for task_id, packed in ((A, b"one"), (B, b"two"), (C, b"tri")):
            house.outbox.put(task_id, packed)
        await aiountil(lambda: len(house.store) == 3, "all to be stored")
        house.attach()
        await house.sent(b"one", b"two")
        house.publisher.sent[0][1].set_result(None)
        await house.sent(b"one", b"two", b"tri")

    play(tmp_path, game)


def test_a_result_that_is_gone_from_the_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def game(house: House) -> None:
        house.outbox.put(A, b"one")
        await aiountil(lambda: len(house.store) == 1, "it to be stored")
        house.store.discard([A])
        house.attach()
        await aiountil(lambda: house.publisher.sent, "something to be sent")
        assert "removed from the endpoint's disk" in house.publisher.results()[A].data

    with caplog.at_level(logging.ERROR):
        play(tmp_path, game)
    assert "gone from the disk" in caplog.text


def test_not_crossed_out_is_not_removed(tmp_path: Path) -> None:
    """A journal that cannot be written keeps the result: the next endpoint sends it again."""

    class BadJournal(Journal):
        def finish(self, task_ids: object) -> None:
            raise OSError("disk fails")

    async def run() -> None:
        journal, store = BadJournal(tmp_path / "journal"), ResultStore(tmp_path / "results")
        outbox, publisher = Outbox(journal, store, lambda task_id: None), StubPublisher(confirms=True)
        outbox.attach(publisher, TARGET)  # type: ignore[arg-type]
        outbox.put(A, messages.pack(messages.Result(A, "data")))
        await outbox.flushed()
        assert store.ids() == [A]

    asyncio.run(run())
