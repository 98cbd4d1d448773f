"""Sends results: now when the broker is there, otherwise when it is back.

`intake` gives every result to `put`, in the loop's thread. The result is stored and synced in another thread, together
with those that came meanwhile; then it is published, and removed once the broker has confirmed it. `attach` takes a
new connection's publisher and sends whatever is left; `detach` tells that the connection is gone.

A result that cannot be stored (disk or quota full) is kept in memory and sent all the same; it is stored when there is
room again. However much has piled up, only so much is read and given to the connection at a time. While `crowded`, no
more tasks should be accepted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from uep import error_results
from uep.storage.group_commit import GroupCommit
from uep.storage.result_store import ResultStore
from wire.amqp import ConnectionLost, Publisher, TooLarge
from wire.queues import Target

log = logging.getLogger(__name__)

MOST_RESULTS = 100_000
"""Unconfirmed results with which an outbox is crowded."""
MOST_ON_DISK = 2 << 30
"""Bytes, of the same."""
MOST_IN_MEMORY = 256 << 20
"""Bytes of results that are not stored, or not yet, of the same."""
GROUP_SIZE = 16 << 20
"""Bytes of results that are stored together; one result more than that may be."""
MOST_SENT = 1000
"""Results that wait for their confirms at a time."""
MOST_BYTES_SENT = 32 << 20
"""Bytes, of the same; one result more than that may be on its way."""
AGAIN = 30.0
"""Seconds after which a result that the broker refused is sent again."""

_Thing: TypeAlias = "tuple[str, bytes | None]"
"""For the disk's thread: a task with its result to store, or with None when that has been confirmed."""


class Outbox:
    """The results that are not confirmed yet. `on_forwarded` is called with each task id once it is.

    Whoever keeps a record of the tasks sets `before_removal`, which is called in the disk's thread with the tasks
    whose results are about to be removed (when it raises, they stay), and `after_removal`, called in the loop.
    """

    def __init__(self, store: ResultStore, on_forwarded: Callable[[str], None]) -> None:
        self.before_removal: Callable[[Sequence[str]], None] = lambda task_ids: None
        self.after_removal: Callable[[Sequence[str]], None] = lambda task_ids: None
        self._store = store
        self._on_forwarded = on_forwarded
        self._pending = dict.fromkeys(store.ids())
        self._confirmed: set[str] = set()
        self._in_memory: dict[str, bytes] = {}
        self._bytes_in_memory = 0
        self._being_stored: set[str] = set()
        self._not_stored: set[str] = set()
        self._disk_fails = False
        self._disk: GroupCommit[_Thing, dict[str, Exception]] = GroupCommit("results", self._work, self._worked)
        self._courier: _Courier | None = None
        self._empty = asyncio.Event()
        self._note_empty()

    def __len__(self) -> int:
        return len(self._pending) + len(self._confirmed)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._pending or task_id in self._confirmed

    @property
    def crowded(self) -> bool:
        """Whether there is as much as may be kept."""
        return (
            len(self._pending) >= MOST_RESULTS
            or self._store.size >= MOST_ON_DISK
            or self._bytes_in_memory >= MOST_IN_MEMORY
        )

    def was_confirmed(self, task_id: str) -> bool:
        """Whether an earlier endpoint has seen this task's result confirmed, as far as that is still known."""
        return task_id in self._store.confirmed

    def put(self, task_id: str, packed: bytes) -> None:
        """Takes a result; from here on it is sent until the broker confirms it."""
        self._pending[task_id] = None
        self._in_memory[task_id] = packed
        self._bytes_in_memory += len(packed)
        self._note_empty()
        self._store_soon(task_id)

    def attach(self, publisher: Publisher, target: Target) -> None:
        """Publishes from now on through `publisher`, first of all what is left."""
        self._courier = _Courier(publisher, target, self._fetch, self._confirm, self._replace)
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

    def _work(self, things: list[_Thing]) -> dict[str, Exception]:
        """In the disk's thread: the tasks whose results could not be stored, and why."""
        failed: dict[str, Exception] = {}
        for group in _groups((task_id, packed) for task_id, packed in things if packed is not None):
            try:
                self._store.put(group)
            except Exception as e:  # noqa: BLE001 - whatever it is, the results are to be sent
                failed.update((task_id, e) for task_id, _ in group)
        if confirmed := [task_id for task_id, packed in things if packed is None]:
            try:
                self.before_removal(confirmed)
                self._store.discard(confirmed)
            except Exception as e:  # noqa: BLE001 - the next endpoint sends them again
                log.error("results that the broker has cannot be removed: %s", _why(e))
        return failed

    def _worked(self, things: list[_Thing], failed: dict[str, Exception]) -> None:
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
            self.after_removal(removed)

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
        """The result of a task; None when it is not to be sent, or cannot be read now."""
        if task_id in self._in_memory or task_id not in self._pending:
            return self._in_memory.get(task_id)
        try:
            return await self._disk.run(self._store.get, task_id)
        except FileNotFoundError:
            log.error("result of task %s is gone from the disk: an error is sent instead", task_id)
            return error_results.failure(task_id, "The result of this task was removed from the endpoint's disk.")
        except OSError as e:
            log.error("result of task %s cannot be read (%s): kept for the next connection", task_id, e.strerror)
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
        """The broker closes the connection whenever this result comes: it would keep all others from being sent."""
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


class _Courier:
    """Sends results through one publisher, a bounded number at a time, and tells which are confirmed."""

    def __init__(
        self,
        publisher: Publisher,
        target: Target,
        fetch: Callable[[str], Awaitable[bytes | None]],
        confirm: Callable[[str], None],
        replace: Callable[[str, int, int], None],
    ) -> None:
        self._publisher = publisher
        self._target = target
        self._fetch = fetch
        self._confirm = confirm
        self._replace = replace
        self._waiting: deque[str] = deque()
        self._sent: dict[str, int] = {}
        self._bytes_sent = 0
        self._wake = asyncio.Event()
        self._sending = asyncio.ensure_future(self._send_waiting())

    def take(self, task_id: str, packed: bytes | None = None) -> None:
        """Sends the result, now when it is at hand and there is room, otherwise when it is its turn."""
        if packed is not None and not self._waiting and self._has_room():
            self._send(task_id, packed)
        else:
            self._waiting.append(task_id)
            self._wake.set()

    def stop(self) -> None:
        """Sends no more."""
        self._sending.cancel()
        self._waiting.clear()

    def _has_room(self) -> bool:
        return len(self._sent) < MOST_SENT and self._bytes_sent < MOST_BYTES_SENT

    async def _send_waiting(self) -> None:
        while True:
            while self._waiting and self._has_room():
                task_id = self._waiting.popleft()
                packed = await self._fetch(task_id)
                if packed is not None:
                    self._send(task_id, packed)
            self._wake.clear()
            await self._wake.wait()

    def _send(self, task_id: str, packed: bytes) -> None:
        if task_id in self._sent:
            return
        self._sent[task_id] = len(packed)
        self._bytes_sent += len(packed)
        self._publisher.send(self._target, packed).add_done_callback(lambda f: self._answered(task_id, f))

    def _answered(self, task_id: str, confirmed: asyncio.Future[None]) -> None:
        size = self._sent.pop(task_id)
        self._bytes_sent -= size
        self._wake.set()
        error = None if confirmed.cancelled() else confirmed.exception()
        if isinstance(error, TooLarge) and size > error.limit:
            self._replace(task_id, size, error.limit)
            return
        if confirmed.cancelled() or isinstance(error, ConnectionLost):
            return  # the next connection sends it again
        if error is not None:
            log.error("result of task %s not taken by the broker, sent again in %g s: %s", task_id, AGAIN, error)
            asyncio.get_running_loop().call_later(AGAIN, self.take, task_id)
            return
        self._confirm(task_id)


def _why(error: Exception) -> str:
    """Without the path, which is long and always the same."""
    return error.strerror if isinstance(error, OSError) and error.strerror else repr(error)


def _groups(results: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """The results in the groups that are stored together."""
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
