"""Tasks from the broker to the engine, and their results to the outbox.

All in the loop's thread; only `_finished` is called elsewhere. The life of a task here:

    received   waits until the engine is ready and has room; not acknowledged, so the broker still answers for it
    accepted   in the journal, in the engine, acknowledged: from now on this endpoint answers for it
    answered   its result is in the outbox and the journal has forgotten it

Acknowledging early is needed: the broker closes a channel on which a delivery stays open for half an hour. What comes
a second time (a lost acknowledgement) is acknowledged again and not run again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from uep import answers
from uep.audit import Audit
from uep.engines.base import Engine, Job
from uep.journal import Journal
from uep.outbox import Outbox
from wire import messages
from wire.amqp import Consumer, Delivery

log = logging.getLogger(__name__)

PREFETCH = 500
"""Deliveries that the broker sends ahead of their acknowledgements."""
MOST_IN_FLIGHT = 4000
"""Tasks accepted and not answered; what comes beyond waits unacknowledged."""
REMEMBERED = 20_000
"""Answered tasks whose second delivery is recognized."""


class Intake:
    """The tasks of one endpoint. `received` counts those accepted, and those found left over at the start."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        outbox: Outbox,
        audit: Audit,
        allowed_functions: frozenset[str] | None = None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._outbox = outbox
        self._audit = audit
        self._allowed = allowed_functions
        self._loop = asyncio.get_running_loop()
        self._consumer: Consumer | None = None
        self._waiting: deque[Delivery] = deque()
        self._in_flight: set[str] = set()
        self._answered = _Remembered(REMEMBERED)
        self._none_in_flight = asyncio.Event()
        self._none_in_flight.set()
        self._closed = False
        self.received = len(outbox)
        self._answer_leftovers(journal.leftover)

    def receive(self, delivery: Delivery) -> None:
        """A delivery from the task queue, also before `attach`. Nothing is taken once closed."""
        if not self._closed:
            self._waiting.append(delivery)
            self._pump()

    def attach(self, consumer: Consumer) -> None:
        """`consumer` acknowledges from now on."""
        self._consumer = consumer
        self._pump()

    def detach(self) -> None:
        """The connection is gone, and with it what was not acknowledged: the broker will send it again."""
        self._consumer = None
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

    def abandon(self) -> int:
        """Answers what is still running with an error, and how many that were. Their own results are ignored."""
        left = list(self._in_flight)
        for task_id in left:
            self._answer(task_id, answers.stopped_while_running(task_id))
        return len(left)

    def _answer_leftovers(self, leftover: Iterable[str]) -> None:
        for task_id in leftover:
            if task_id in self._outbox:  # stored by the earlier endpoint just before its end
                self._journal.finish(task_id)
                continue
            log.warning("task %s was running when an earlier endpoint ended: answered with an error", task_id)
            self.received += 1
            self._answer(task_id, answers.stopped_while_running(task_id))

    def _pump(self) -> None:
        while self._waiting and self._consumer is not None and len(self._in_flight) < MOST_IN_FLIGHT:
            self._take(self._waiting.popleft(), self._consumer)

    def _take(self, delivery: Delivery, consumer: Consumer) -> None:
        task_id = _task_id(delivery)
        if task_id is None:
            log.error("message of %d bytes without a task id thrown away", len(delivery.body))
        elif task_id in self._in_flight or task_id in self._outbox or task_id in self._answered:
            log.info("task %s came a second time", task_id)
        else:
            self._accept(task_id, delivery)
        consumer.ack(delivery.tag)

    def _accept(self, task_id: str, delivery: Delivery) -> None:
        log.debug("task %s accepted", task_id)
        self.received += 1
        try:
            self._journal.accept(task_id)
        except OSError as e:
            log.error("task %s cannot be noted in the journal (%s): run all the same", task_id, e.strerror)
        self._in_flight.add(task_id)
        self._none_in_flight.clear()
        self._submit(task_id, delivery)

    def _submit(self, task_id: str, delivery: Delivery) -> None:
        function = delivery.headers.get("function_uuid")
        self._audit.record("RECEIVED", task_id, function)
        if self._allowed is not None and str(function).lower() not in self._allowed:
            log.warning("task %s: function %s is not allowed here", task_id, function)
            self._audit.record("FAILED", task_id, function, "Function not permitted on endpoint")
            self._answer(task_id, answers.not_allowed(task_id, function, self._engine.place.endpoint_id))
            return
        try:
            job = _job(task_id, delivery)
        except (ValueError, TypeError) as e:
            self._answer(task_id, answers.failure(task_id, f"Failed to start task: {e}"))
            return
        self._audit.record("EXEC_START", task_id, function)
        self._engine.submit(job).add_done_callback(lambda done: self._finished(task_id, function, done))

    def _finished(self, task_id: str, function: object, done: Future[bytes]) -> None:
        """In whatever thread ended the task."""
        self._audit.record("EXEC_END", task_id, function)
        try:
            self._loop.call_soon_threadsafe(self._answer, task_id, done.result())
        except RuntimeError:
            return  # the loop is closed: the endpoint has ended, and answered the task

    def _answer(self, task_id: str, packed: bytes) -> None:
        if task_id in self._answered:
            return
        log.debug("task %s answered", task_id)
        self._answered.add(task_id)
        self._outbox.put(task_id, packed)
        try:
            self._journal.finish(task_id)
        except OSError as e:
            log.error("journal cannot be written: %s", e.strerror)
        self._in_flight.discard(task_id)
        if not self._in_flight:
            self._none_in_flight.set()
        self._pump()


class _Remembered:
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
    """From the headers; from the body, which is costly to read, when it is not there."""
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


def _job(task_id: str, delivery: Delivery) -> Job:
    """Raises ValueError or TypeError when the headers are not as they should be."""
    resources: dict[str, Any] = dict(json.loads(delivery.headers.get("resource_specification") or "{}") or {})
    serializers = delivery.headers.get("result_serializers") or ()
    return Job(task_id, delivery.body, resources, tuple(map(str, serializers)))
