"""Keeps results until the broker has them, and has them sent: now, or in a later session.

`inbox` gives every result to `put`, in the loop's thread. The result is stored and synced in another thread, together
with those that came meanwhile; then it is published, and removed once the broker has confirmed it. `attach` takes a
new session's publisher and sends whatever is left; `detach` ends that.

A result that cannot be stored (disk or quota full) is kept in memory and sent all the same; it is stored when there is
room again. While `crowded`, no more tasks should be accepted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from uep import error_results
from uep.broker.courier import Courier
from uep.storage.group_commit import GroupCommit
from uep.storage.journal import Journal
from uep.storage.result_store import ResultStore
from wire.publisher import Publisher
from wire.queues import Target

log = logging.getLogger(__name__)

MOST_RESULTS = 100_000
"""Unconfirmed results with which the outbox is crowded."""
MOST_ON_DISK = 2 << 30
"""Bytes of results on disk with which the outbox is crowded."""
MOST_IN_MEMORY = 256 << 20
"""Bytes of results that are not stored, or not yet, with which the outbox is crowded."""
GROUP_SIZE = 16 << 20
"""Bytes of results that are stored together; one result more than that may be."""

_DiskWork: TypeAlias = "tuple[str, bytes | None]"
"""For the disk's thread: a task with its result to store, or with None when that has been confirmed."""


class Outbox:
    """The results that are not confirmed yet.

    A task is crossed out in the journal, in the disk's thread, right before its result is removed from the store: at
    any moment an open task either has its result on disk or has none.

    Args:
        on_forwarded: is called with each task whose result the broker has confirmed.
    """

    def __init__(self, journal: Journal, store: ResultStore, on_forwarded: Callable[[str], None]) -> None:
        self._journal = journal
        self._store = store
        self._on_forwarded = on_forwarded
        self._on_removed: Callable[[Sequence[str]], None] = lambda task_ids: None
        self._pending = dict.fromkeys(store.ids())
        self._confirmed: set[str] = set()
        self._in_memory: dict[str, bytes] = {}
        self._bytes_in_memory = 0
        self._being_stored: set[str] = set()
        self._not_stored: set[str] = set()
        self._disk_fails = False
        self._disk: GroupCommit[_DiskWork, dict[str, Exception]] = GroupCommit("results", self._work, self._worked)
        self._courier: Courier | None = None
        self._empty = asyncio.Event()
        self._note_empty()

    def __len__(self) -> int:
        return len(self._pending) + len(self._confirmed)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._pending or task_id in self._confirmed

    @property
    def crowded(self) -> bool:
        """Tells whether there is as much as may be kept."""
        return (
            len(self._pending) >= MOST_RESULTS
            or self._store.size >= MOST_ON_DISK
            or self._bytes_in_memory >= MOST_IN_MEMORY
        )

    def when_removed(self, call: Callable[[Sequence[str]], None]) -> None:
        """Has `call` called, in the loop, with tasks that are crossed out and whose results are removed."""
        self._on_removed = call

    def put(self, task_id: str, packed: bytes) -> None:
        """Takes a result; from here on it is sent until the broker confirms it."""
        self._pending[task_id] = None
        self._in_memory[task_id] = packed
        self._bytes_in_memory += len(packed)
        self._note_empty()
        self._store_soon(task_id)

    def attach(self, publisher: Publisher, target: Target) -> None:
        """Publishes from now on through `publisher`, first of all what is left."""
        self._courier = Courier(publisher, target, self._fetch, self._confirm, self._replace)
        if self._pending:
            log.info("sending %d results that were kept", len(self._pending))
        for task_id in self._pending:
            if task_id not in self._being_stored:
                self._courier.take(task_id)

    def detach(self) -> None:
        """Publishes no more until the next `attach`."""
        if self._courier is not None:
            self._courier.stop()
            self._courier = None

    async def flushed(self) -> None:
        """Returns once every result is confirmed, and removed."""
        await self._empty.wait()

    def _store_soon(self, task_id: str) -> None:
        self._not_stored.discard(task_id)
        self._being_stored.add(task_id)
        self._disk.add((task_id, self._in_memory[task_id]))

    def _work(self, things: list[_DiskWork]) -> dict[str, Exception]:
        """Stores and removes results, in the disk's thread; returns which could not be stored, and why."""
        failed: dict[str, Exception] = {}
        for group in _groups((task_id, packed) for task_id, packed in things if packed is not None):
            try:
                self._store.put(group)
            except Exception as e:  # noqa: BLE001 - whatever it is, the results are to be sent
                failed.update((task_id, e) for task_id, _ in group)
        if confirmed := [task_id for task_id, packed in things if packed is None]:
            try:
                self._journal.finish(confirmed)
                self._store.discard(confirmed)
            except Exception as e:  # noqa: BLE001 - the next endpoint sends them again
                log.error("results that the broker has cannot be removed: %s", _why(e))
        return failed

    def _worked(self, things: list[_DiskWork], failed: dict[str, Exception]) -> None:
        if any(packed is not None for _, packed in things):
            self._note_disk(failed)
        for task_id, packed in things:
            if packed is not None:
                self._stored(task_id, packed, task_id not in failed)
        self._confirmed.difference_update(removed := [task_id for task_id, packed in things if packed is None])
        self._note_empty()
        if not self._disk_fails:  # there may be room again
            for task_id in list(self._not_stored):
                self._store_soon(task_id)
        if removed:
            self._on_removed(removed)

    def _note_disk(self, failed: dict[str, Exception]) -> None:
        if failed and not self._disk_fails:
            log.error("results cannot be stored (%s): kept in memory only", _why(next(iter(failed.values()))))
        elif self._disk_fails and not failed:
            log.info("storing the results that could not be stored before")
        self._disk_fails = bool(failed)

    def _stored(self, task_id: str, packed: bytes, well: bool) -> None:
        self._being_stored.discard(task_id)
        if well:
            self._drop_from_memory(task_id)
        elif task_id in self._pending:
            self._not_stored.add(task_id)
        if task_id in self._pending and self._courier is not None:
            self._courier.take(task_id, packed)

    async def _fetch(self, task_id: str) -> bytes | None:
        """Gets the result of a task; None when it is not to be sent, or cannot be read now."""
        if task_id in self._in_memory or task_id not in self._pending:
            return self._in_memory.get(task_id)
        try:
            return await self._disk.run(self._store.get, task_id)
        except FileNotFoundError:
            log.error("result of task %s is gone from the disk: an error is sent instead", task_id)
            return error_results.failure(task_id, "The result of this task was removed from the endpoint's disk.")
        except OSError as e:
            log.error("result of task %s cannot be read (%s): kept for the next session", task_id, e.strerror)
            return None

    def _confirm(self, task_id: str) -> None:
        if task_id not in self._pending:
            return
        del self._pending[task_id]
        self._confirmed.add(task_id)
        self._not_stored.discard(task_id)
        self._drop_from_memory(task_id)
        self._disk.add((task_id, None))
        self._on_forwarded(task_id)

    def _replace(self, task_id: str, size: int, limit: int) -> None:
        """Puts an error in the place of a result for which the broker closes the connection."""
        if task_id in self._pending:
            log.error("result of task %s: the broker takes no %d bytes; an error is sent instead", task_id, size)
            self._drop_from_memory(task_id)
            self.put(task_id, error_results.too_large_for_the_broker(task_id, size, limit))

    def _drop_from_memory(self, task_id: str) -> None:
        self._bytes_in_memory -= len(self._in_memory.pop(task_id, b""))

    def _note_empty(self) -> None:
        if len(self):
            self._empty.clear()
        else:
            self._empty.set()


def _why(error: Exception) -> str:
    """Says what went wrong, without the path, which is long and always the same."""
    return error.strerror if isinstance(error, OSError) and error.strerror else repr(error)


def _groups(results: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Divides results into the groups that are stored together."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for task_id, packed in results:
        group.append((task_id, packed))
        size += len(packed)
        if size >= GROUP_SIZE:
            yield group
            group, size = [], 0
    if group:
        yield group
