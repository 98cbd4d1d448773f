"""Notes on disk which tasks this endpoint has accepted and whose results the broker does not have yet.

A task is acknowledged to the broker when it is handed to the engine, long before it has a result. If the endpoint is
killed in between, nobody else knows of the task: the next endpoint of the same name finds it here and answers it with
an error. `inbox` notes tasks before their ack (`accept`); `outbox` crosses them out (`finish`) when their results are
confirmed, and only then removes these: at any moment an open task either has its result on disk or has none.

One file of slots, 64 bytes each, `+ID` while the task is open. Slots are allocated ahead and used again: a full disk
does not touch them, and the file stays as small as the most tasks that were ever open at once. `accept` returns when
the slots are on the disk itself (one sync for any number of tasks); what `finish` writes goes there with the next, or
with `sync`. After a crash of the machine a task may so be open that is answered: the store of results shows that it is.
All three may wait for the disk: they are meant for a thread beside the loop.
"""

from __future__ import annotations

import heapq
import os
import threading
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from uep.storage.files import sync_directory_of, write_at

SLOT = 64
"""Bytes of one: none lies across two sectors of a disk, so that a slot is written whole or not at all."""
GROWTH = 1024
"""Slots added at a time."""

_FREE = b" " * (SLOT - 1) + b"\n"


class Journal:
    """The open tasks, kept in the file `path`. `leftover` holds those that an earlier endpoint left open.

    Methods may be called in several threads at once.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file and writes it afresh.

        Raises:
            OSError: the file cannot be used.
        """
        self.leftover = frozenset(_open_tasks(path.read_bytes() if path.exists() else b""))
        self._slots = {task_id: slot for slot, task_id in enumerate(self.leftover)}
        self._size = len(self._slots) + GROWTH
        self._free = list(range(len(self._slots), self._size))
        self._lock = threading.Lock()
        self._fd = _fresh(path, b"".join(map(_used, self._slots)) + _FREE * GROWTH)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def accept(self, task_ids: Collection[str]) -> None:
        """Notes that these tasks are ours now.

        Raises:
            OSError: that is not on disk.
        """
        with self._lock:
            new = [task_id for task_id in dict.fromkeys(task_ids) if task_id not in self._slots]
            while len(self._free) < len(new):
                self._grow()
            taken = [heapq.heappop(self._free) for _ in new]
            self._slots.update(zip(new, taken, strict=True))
            _write_slots(self._fd, dict(zip(taken, map(_used, new), strict=True)))
        self.sync()

    def finish(self, task_ids: Collection[str]) -> None:
        """Crosses out these tasks, which are answered; harmless when they are not open.

        Raises:
            OSError: that cannot be written.
        """
        with self._lock:
            freed = sorted(slot for task_id in task_ids if (slot := self._slots.pop(task_id, None)) is not None)
            try:
                _write_slots(self._fd, dict.fromkeys(freed, _FREE))
            finally:
                for slot in freed:
                    heapq.heappush(self._free, slot)

    def sync(self) -> None:
        """Returns when all that was noted is on the disk itself.

        Raises:
            OSError: it is not.
        """
        os.fdatasync(self._fd)

    def _grow(self) -> None:
        write_at(self._fd, self._size * SLOT, _FREE * GROWTH)
        for slot in range(self._size, self._size + GROWTH):
            heapq.heappush(self._free, slot)
        self._size += GROWTH


def _fresh(path: Path, content: bytes) -> int:
    """Makes a new file in the place of `path`: an earlier endpoint that has not ended yet does not write into ours.

    Raises:
        OSError: disk or quota full, say.
    """
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_at(fd, 0, content)
        os.fsync(fd)
        new.rename(path)
        sync_directory_of(path)
    except OSError:
        os.close(fd)
        new.unlink(missing_ok=True)
        raise
    return fd


def _write_slots(fd: int, contents: Mapping[int, bytes]) -> None:
    """Writes slots, which come in order, with one call for those that lie side by side."""
    first, together = 0, b""
    for slot, content in contents.items():
        if slot != first + len(together) // SLOT:
            write_at(fd, first * SLOT, together)
            first, together = slot, b""
        together += content
    write_at(fd, first * SLOT, together)


def _used(task_id: str) -> bytes:
    return f"+{task_id}".encode().ljust(SLOT - 1) + b"\n"


def _is_task_id(name: str) -> bool:
    """Tells whether `name` is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _open_tasks(content: bytes) -> set[str]:
    lines = content.decode(errors="replace").splitlines()
    return {task_id for line in lines if line[:1] == "+" and _is_task_id(task_id := line[1:].rstrip())}
