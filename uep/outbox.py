"""Sends results: now when the broker is there, otherwise when it is back.

`endpoint` gives every result to `put`, in its loop's thread. The result is stored, published, and forgotten once the
broker has confirmed it. `attach` takes a new connection's publisher and sends whatever is still stored; `detach` tells
that the connection is gone. A result that cannot be stored (disk or quota full) is kept in memory instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from uep.results import ResultStore
from wire.amqp import ConnectionLost, Publisher
from wire.queues import Target

log = logging.getLogger(__name__)


class Outbox:
    """The results that are not confirmed yet. `on_forwarded` is called with each task id once it is."""

    def __init__(self, store: ResultStore, on_forwarded: Callable[[str], None]) -> None:
        self._store = store
        self._on_forwarded = on_forwarded
        self._pending = set(store.ids())
        self._in_memory: dict[str, bytes] = {}
        self._publisher: tuple[Publisher, Target] | None = None
        self._empty = asyncio.Event()
        self._note_empty()

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._pending

    def put(self, task_id: str, packed: bytes) -> None:
        """Takes a result; from here on it is sent until the broker confirms it."""
        try:
            self._store.put(task_id, packed)
        except OSError as e:
            log.error("result of task %s cannot be stored (%s): kept in memory only", task_id, e.strerror)
            self._in_memory[task_id] = packed
        self._pending.add(task_id)
        self._note_empty()
        if self._publisher is not None:
            self._send(task_id, packed)

    def attach(self, publisher: Publisher, target: Target) -> None:
        """Publishes from now on through `publisher`, first of all what is left."""
        self._publisher = (publisher, target)
        if self._pending:
            log.info("sending %d results that were kept", len(self._pending))
        for task_id, packed in self._kept():
            if task_id in self._pending:
                self._send(task_id, packed)

    def detach(self) -> None:
        """Publishes no more until the next `attach`."""
        self._publisher = None

    async def flushed(self) -> None:
        """Returns once every result is confirmed."""
        await self._empty.wait()

    def _kept(self) -> Iterator[tuple[str, bytes]]:
        yield from list(self._in_memory.items())
        yield from self._store.items()

    def _send(self, task_id: str, packed: bytes) -> None:
        assert self._publisher is not None
        publisher, target = self._publisher
        confirmed = publisher.send(target, packed)
        confirmed.add_done_callback(lambda f: self._sent(task_id, f))

    def _sent(self, task_id: str, confirmed: asyncio.Future[None]) -> None:
        error = None if confirmed.cancelled() else confirmed.exception()
        if confirmed.cancelled() or isinstance(error, ConnectionLost):
            return  # the next connection sends it again
        if error is not None:
            log.error("result of task %s not taken by the broker, kept for the next connection: %s", task_id, error)
            return
        if task_id in self._pending:
            self._confirmed(task_id)

    def _confirmed(self, task_id: str) -> None:
        self._pending.discard(task_id)
        self._in_memory.pop(task_id, None)
        try:
            self._store.discard(task_id)
        except OSError as e:
            log.error("result of task %s cannot be removed: %s", task_id, e.strerror)
        self._note_empty()
        self._on_forwarded(task_id)

    def _note_empty(self) -> None:
        if self._pending:
            self._empty.clear()
        else:
            self._empty.set()
