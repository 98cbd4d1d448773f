"""Accepts tasks from the broker, and answers for each of them until its result is in the outbox.

All in the loop's thread, but for what the journal's thread does. The life of a task here:

    received   waits until there is a consumer and room; not acknowledged, so the broker still answers for it
    accepted   in the journal on disk, then with the dispatcher, acknowledged: from now on this endpoint answers for it
    answered   its result is in the outbox, which crosses it out in the journal once the broker has the result

Acknowledging early is needed: the broker closes a channel on which a delivery stays open for half an hour. What comes
a second time (a lost acknowledgement) is acknowledged again and not run again. When the journal cannot be written, a
task is run all the same, and acknowledged when its result is with the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from uep import error_results
from uep.broker.dispatcher import Dispatcher
from uep.broker.outbox import Outbox
from uep.storage.group_commit import GroupCommit
from uep.storage.journal import Journal
from wire import messages, stop_request
from wire.consumer import Consumer, Delivery

log = logging.getLogger(__name__)

PREFETCH = 500
"""Deliveries that the broker sends ahead of their acknowledgements."""
PREFETCH_BYTES = 64 << 20
"""Bytes of these, roughly: a task's message may have 10 MiB."""
MOST_IN_FLIGHT = 4000
"""Tasks accepted and not answered; what comes beyond waits unacknowledged."""
MOST_BYTES_IN_FLIGHT = 256 << 20
"""Bytes of their messages, likewise; one message more than that may be accepted."""
REMEMBERED = 20_000
"""Answered tasks whose second delivery is recognized."""


class Inbox:
    """The tasks of one endpoint. `received` counts those taken, and those found left over at the start.

    Args:
        interrupted: tasks that an earlier endpoint has accepted and not answered.
        asked_to_stop: is called when a message in the queue asks so; it is acknowledged then.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: Journal,
        outbox: Outbox,
        interrupted: Iterable[str],
        asked_to_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._asked_to_stop = asked_to_stop
        self._stop_request: Delivery | None = None
        self._journal = journal
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._consumer: Consumer | None = None
        self._waiting: deque[Delivery] = deque()
        self._to_note: GroupCommit[_Arrival, Exception | None] = GroupCommit("journal", self._note, self._noted)
        self._being_noted: set[str] = set()
        self._not_noted: dict[str, _Arrival] = {}
        self._in_flight: dict[str, int] = {}
        self._bytes_in_flight = 0
        self._answered = _RecentSet(REMEMBERED)
        self._none_in_flight = asyncio.Event()
        self._none_in_flight.set()
        self._closed = self._abandoned = False
        self._given_back = 0
        self.received = len(outbox)
        outbox.when_removed(self._removed)
        for task_id in interrupted:
            log.warning("task %s was running when an earlier endpoint ended: answered with an error", task_id)
            self.received += 1
            self._answer(task_id, error_results.stopped_while_running(task_id))

    @property
    def waiting(self) -> int:
        """Counts the tasks that have come and were not accepted."""
        return len(self._waiting) + self._given_back

    def receive(self, delivery: Delivery) -> None:
        """Takes a delivery from the task queue, also before `attach`; once closed, none."""
        if self._closed:
            return
        if stop_request.is_one(delivery.headers):
            self._stop_request = delivery
            self._obey()
            return
        self._waiting.append(delivery)
        self._accept_waiting()

    def attach(self, consumer: Consumer) -> None:
        """Acknowledges through `consumer` from now on."""
        self._consumer = consumer
        self._obey()
        self._accept_waiting()

    def detach(self) -> None:
        """Ends the session, and forgets what was not acknowledged: the broker will send it again."""
        self._consumer = self._stop_request = None
        self._waiting.clear()

    def close(self) -> None:
        """Takes no more tasks; those waiting stay with the broker, for the next endpoint."""
        self._closed = True
        self._waiting.clear()
        if self._consumer is not None:
            self._consumer.cancel()

    async def emptied(self) -> None:
        """Returns once every accepted task is answered."""
        await self._none_in_flight.wait()

    def abandon(self, why: str = "") -> int:
        """Answers what is still running with an error, which says `why`; returns how many tasks that were.

        Ignores their own results.

        A task that is still being noted in the journal has not run. It is not acknowledged either: the successor finds
        it in the queue or in the journal.
        """
        self._abandoned = True
        left = [task_id for task_id in self._in_flight if task_id not in self._being_noted]
        for task_id in left:
            self._answer(task_id, error_results.stopped_while_running(task_id, why))
        return len(left)

    def _obey(self) -> None:
        """Stops when it was asked to: now, however many tasks have come before, which are somebody else's then."""
        if self._stop_request is not None and self._consumer is not None:
            self._consumer.ack(self._stop_request.tag)
            self._stop_request = None
            self._asked_to_stop()

    # Accepting

    def _accept_waiting(self) -> None:
        while self._waiting and self._consumer is not None and self._has_room():
            self._accept(self._waiting.popleft(), self._consumer)

    def _has_room(self) -> bool:
        if not self._dispatcher.works:
            return False
        full = len(self._in_flight) >= MOST_IN_FLIGHT or self._bytes_in_flight >= MOST_BYTES_IN_FLIGHT
        return not full and not self._outbox.crowded

    def _accept(self, delivery: Delivery, consumer: Consumer) -> None:
        task_id = _task_id(delivery)
        if task_id is None:
            log.error("message of %d bytes without a task id thrown away", len(delivery.body))
            consumer.ack(delivery.tag)
            return
        again = task_id in self._in_flight or task_id in self._outbox or task_id in self._answered
        if again:
            log.info("task %s came a second time", task_id)
        else:
            self._in_flight[task_id] = len(delivery.body)
            self._bytes_in_flight += len(delivery.body)
            self._being_noted.add(task_id)
            self.received += 1
            self._none_in_flight.clear()
        self._to_note.add(_Arrival(task_id, delivery, consumer, again))

    def _note(self, arrivals: list[_Arrival]) -> Exception | None:
        """Writes new tasks to the journal, in the journal's thread. What came again is on record already."""
        new = [arrival.task_id for arrival in arrivals if not arrival.again]
        try:
            if new:
                self._journal.accept(new)
        except Exception as e:  # noqa: BLE001 - whatever it is, the tasks must be answered
            return e
        return None

    def _noted(self, arrivals: list[_Arrival], error: Exception | None) -> None:
        if self._abandoned:
            return
        if not self._dispatcher.works:
            self._give_back(arrivals)
            return
        if error is not None:
            log.error("%d tasks cannot be noted in the journal (%s): run all the same", len(arrivals), error)
        self._acknowledge_noted(arrivals, error)
        for arrival in arrivals:
            if not arrival.again:
                self._being_noted.discard(arrival.task_id)
                log.debug("task %s accepted", arrival.task_id)
                self._dispatcher.submit(arrival.task_id, arrival.delivery, partial(self._ended, arrival.task_id))

    def _give_back(self, arrivals: Sequence[_Arrival]) -> None:
        """Leaves to the successor what came for an engine that has died since: neither acknowledged nor noted."""
        back = [arrival.task_id for arrival in arrivals if not arrival.again]
        with contextlib.suppress(OSError):  # then the successor takes them for interrupted
            self._journal.finish(back)
        for task_id in back:
            self._being_noted.discard(task_id)
            self._bytes_in_flight -= self._in_flight.pop(task_id, 0)
        self._given_back += len(back)
        if not self._in_flight:
            self._none_in_flight.set()

    # Acknowledging

    def _acknowledge_noted(self, arrivals: list[_Arrival], error: Exception | None) -> None:
        if error is None and not self._not_noted:
            for consumer, last in {arrival.consumer: arrival.delivery.tag for arrival in arrivals}.items():
                consumer.ack(last, and_earlier=True)  # they come, and are noted, in order
            return
        for arrival in arrivals:
            if error is None or arrival.again:
                self._acknowledge(arrival)
            else:
                self._not_noted[arrival.task_id] = arrival

    def _acknowledge(self, arrival: _Arrival) -> None:
        if arrival.task_id in self._not_noted:
            self._not_noted[arrival.task_id] = arrival  # the new delivery is the one to be acknowledged later
        else:
            arrival.consumer.ack(arrival.delivery.tag)

    def _removed(self, task_ids: Sequence[str]) -> None:
        """Acknowledges those of these tasks that are not in the journal: now the broker has their results."""
        for task_id in task_ids:
            if arrival := self._not_noted.pop(task_id, None):
                self._acknowledge(arrival)
        self._accept_waiting()

    # Answering

    def _ended(self, task_id: str, packed: bytes) -> None:
        """Passes a result on to the loop, from whatever thread ended the task."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the endpoint has ended, and answered the task
            self._loop.call_soon_threadsafe(self._answer, task_id, packed)

    def _answer(self, task_id: str, packed: bytes) -> None:
        if task_id in self._answered:
            return
        log.debug("task %s answered", task_id)
        self._answered.add(task_id)
        self._outbox.put(task_id, packed)
        self._bytes_in_flight -= self._in_flight.pop(task_id, 0)
        if not self._in_flight:
            self._none_in_flight.set()
        self._accept_waiting()


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A task as it came; `again` when it was known already."""

    task_id: str
    delivery: Delivery
    consumer: Consumer
    again: bool


class _RecentSet:
    """A set that forgets its oldest members."""

    def __init__(self, size: int) -> None:
        self._order: deque[str] = deque()
        self._members: set[str] = set()
        self._size = size

    def __contains__(self, member: str) -> bool:
        return member in self._members

    def add(self, member: str) -> None:
        self._members.add(member)
        self._order.append(member)
        if len(self._order) > self._size:
            self._members.discard(self._order.popleft())


def _task_id(delivery: Delivery) -> str | None:
    """Finds the task's id in the headers; in the body, which is costly to read, when it is not there."""
    try:
        return str(uuid.UUID(str(delivery.headers.get("task_uuid"))))
    except ValueError:
        return _task_id_in(delivery.body)


def _task_id_in(body: bytes) -> str | None:
    try:
        message = messages.unpack(body)
    except messages.MessageError:
        return None
    return message.task_id if isinstance(message, messages.Task) else None
