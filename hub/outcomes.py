"""The end of a task: stored, then forwarded to the client's queue. The first end of a task is the one that counts.

Results come from user endpoints; failures are also made here, when an endpoint could not start. Either way the task's
row holds the message until the broker has confirmed the forward, so that a crash in between loses nothing: what was
not forwarded is forwarded on the next connection.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.store import tables
from hub.store.store import Store
from wire import messages
from wire.consumer import Delivery
from wire.errors import BrokerError, NotDelivered, Refused
from wire.messages import ErrorDetails, Result

log = logging.getLogger(__name__)

LEFT_AFTER = 10.0
"""Seconds after which a stored result that is not forwarded is nobody's business any more, but everybody's: its hub
has ended, or its client's queue was full."""
LISTED = 1000
"""Stored results that are listed at a time: what a client does not read may be a million of them."""
SLICE = 100
"""Stored results that are read and forwarded together: all of them may be more than memory holds."""
SLICE_BYTES = 16 * 2**20
"""Bytes of them, unless one alone has more."""

_TASK, _GROUP, _START = tables.task.c, tables.task_group.c, tables.start.c
_KNOWN: Select[Any] = select(
    _TASK.id, _TASK.user_endpoint, _TASK.ended_at, _TASK.task_group, _GROUP.owner, _GROUP.has_queue
).join(tables.task_group, _GROUP.id == _TASK.task_group)
"""What a forward needs to know of its task."""
_THESE = _KNOWN.where(_TASK.id.in_(bindparam("tasks", expanding=True)))
_STORED = _THESE.add_columns(_TASK.result)
_UNFORWARDED = (
    _KNOWN.add_columns(func.length(_TASK.result).label("size"))
    .where(
        tables.UNFORWARDED,
        _TASK.ended_at < bindparam("before"),
        tuple_(_TASK.ended_at, _TASK.id) > tuple_(bindparam("last_end"), bindparam("last_task")),
    )
    .order_by(_TASK.ended_at, _TASK.id)
    .limit(bindparam("most"))
)
_TO_END = _THESE.order_by(_TASK.id).with_for_update(of=tables.task)
"""Another hub that ends the same tasks waits, and then sees that they have ended."""
_END = update(tables.task).where(_TASK.id == bindparam("task")).values(result=bindparam("body"))


@dataclass(frozen=True, slots=True)
class _Forward:
    """A task's end on its way to the client; `queue` is None when the client did not ask for one."""

    task: str
    queue: str | None
    body: bytes


class Outcomes:
    """Stores and forwards."""

    def __init__(self, store: Store, broker: Broker) -> None:
        self._store = store
        self._broker = broker
        self._full: set[str] = set()
        """Queues that took no more; what is for them waits in the store."""

    async def on_results(self, batch: list[Delivery]) -> None:
        """Handles what user endpoints published; returns once it is stored and forwarded."""
        results = [read for delivery in batch if (read := _read(delivery)) is not None]
        forwards = await self._store.write(lambda db: _end_all(db, results, time.time()))
        await self._forward(forwards)

    async def fail_waiting(self, user_endpoint: str, code: str, text: str) -> None:
        """Ends with the same failure all tasks of a user endpoint that have not ended."""

        def fail(db: Connection) -> list[_Forward]:
            waiting = db.scalars(select(_TASK.id).where(_TASK.user_endpoint == user_endpoint, tables.WAITS))
            error = ErrorDetails(code, text)
            failures = [Result(task, text, error_details=error) for task in waiting]
            return _end_all(db, [(user_endpoint, f.task_id, messages.pack(f)) for f in failures], time.time())

        await self._forward(await self._store.write(fail))

    async def run(self) -> None:
        """Forwards, from time to time, what a full queue has not taken, and what another hub has stored and does not
        forward any more; never returns."""
        while True:
            await asyncio.sleep(LEFT_AFTER)
            try:
                async with self._store.lock.alone("forward"):
                    await self.forward_remaining(time.time() - LEFT_AFTER)
            except (BrokerError, SQLAlchemyError) as e:
                log.info("Results that wait are forwarded later: %s", e)

    async def forward_remaining(self, ended_before: float = math.inf) -> None:
        """Forwards what was stored but not confirmed before the connection, or the hub, went away."""
        self._full.clear()
        await self._forward_stored(ended_before)

    async def _forward_stored(self, ended_before: float) -> None:
        """Forwards what is stored, a slice at a time, but nothing more to a queue that turns out to be full."""
        tasks: list[str] = []
        size = 0
        async for row in self._unforwarded(ended_before):
            if _forward(row, b"").queue in self._full:
                continue
            if tasks and (len(tasks) >= SLICE or size + row.size > SLICE_BYTES):
                await self._forward_these(tasks)
                tasks, size = [], 0
            tasks.append(row.id)
            size += row.size
        await self._forward_these(tasks)

    async def _unforwarded(self, ended_before: float) -> AsyncIterator[Row[Any]]:
        """Lists what is stored and not forwarded, oldest first; others have their turn in between."""
        last: tuple[float, str] = -math.inf, ""
        while True:
            rows = await self._store.read(
                _UNFORWARDED, before=ended_before, last_end=last[0], last_task=last[1], most=LISTED
            )
            for row in rows:
                yield row
            if len(rows) < LISTED:
                return
            last = rows[-1].ended_at, rows[-1].id
            await asyncio.sleep(0)

    async def _forward_these(self, tasks: list[str]) -> None:
        stored = await self._store.read(_STORED, tasks=tasks) if tasks else []
        await self._forward([_forward(row, row.result) for row in stored])

    async def _forward(self, forwards: Sequence[_Forward]) -> None:
        now = int(time.time())
        sent = [f for f in forwards if f.queue is not None and f.queue not in self._full]
        confirms = [
            self._broker.send(topology.target(str(f.queue), "application/octet-stream", timestamp=now), f.body)
            for f in sent
        ]
        refused = set()
        for f, end in zip(sent, await asyncio.gather(*confirms, return_exceptions=True), strict=True):
            if isinstance(end, Refused):
                refused.add(f.task)
                if f.queue not in self._full:
                    self._full.add(str(f.queue))
                    log.warning("Results wait in the database: their client does not read, queue %s is full", f.queue)
            elif isinstance(end, NotDelivered):
                log.warning("A result was not forwarded, the client can still ask for it: %s", end)
            elif end is not None:
                raise end
        done = {f.task for f in sent} - refused
        ids = [f.task for f in forwards if f.queue is None or f.task in done]
        if not ids:
            return
        # Not awaited: after a crash here a result is forwarded twice, which clients take.
        marking = asyncio.ensure_future(self._store.write(lambda db: _mark_forwarded(db, ids)))
        marking.add_done_callback(_log_failure)


def _read(delivery: Delivery) -> tuple[str, str, bytes] | None:
    """Returns sender, task id and body of a result; None, with a log line, when it is no result."""
    sender = topology.sender(delivery.routing_key)
    try:
        message = messages.unpack(delivery.body)
    except messages.MessageError as e:
        log.warning("Dropped a message from user endpoint %s to the result queue: %s", sender, e)
        return None
    if not isinstance(message, Result):
        log.warning("Dropped a %s from user endpoint %s: not a result", type(message).__name__, sender)
        return None
    return sender, message.task_id, delivery.body


def _end_all(db: Connection, results: Sequence[tuple[str, str, bytes]], now: float) -> list[_Forward]:
    """Ends each task that the sender was given and that has not ended; the others are dropped with a log line."""
    known: dict[str, Row[Any]] = {
        row.id: row for row in db.execute(_TO_END, {"tasks": [task for _, task, _ in results]})
    }
    forwards: dict[str, _Forward] = {}
    senders = set()
    for sender, task, body in results:
        row = known.get(task)
        if row is None or row.user_endpoint != sender:
            log.warning("Dropped a result from user endpoint %s: it has no task %s", sender, task)
        elif row.ended_at is not None or task in forwards:
            log.info("Dropped a result from user endpoint %s: task %s has ended before", sender, task)
        else:
            forwards[task] = _forward(row, body)
            senders.add(sender)
    if forwards:
        ended = [{"task": forward.task, "body": forward.body} for forward in forwards.values()]
        db.execute(_END.values(ended_at=now), ended)
        first = _START.user_endpoint.in_(senders), _START.first_result_at.is_(None), _START.ended_at.is_(None)
        db.execute(update(tables.start).where(*first).values(first_result_at=now))
    return list(forwards.values())


def _forward(row: Row[Any], body: bytes) -> _Forward:
    queue = topology.client_queue_prefix(row.owner) + row.task_group if row.has_queue else None
    return _Forward(row.id, queue, body)


def _mark_forwarded(db: Connection, ids: list[str]) -> None:
    db.execute(update(tables.task).where(_TASK.id.in_(ids)).values(forwarded=True))


def _log_failure(marking: asyncio.Future[Any]) -> None:
    if not marking.cancelled() and marking.exception() is not None:
        log.warning("Forwarded results could not be marked: %s", marking.exception())
