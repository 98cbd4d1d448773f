"""Which tasks this endpoint has accepted and not yet answered, on disk.

A task is acknowledged to the broker when it is handed to the engine, long before it has a result. If the endpoint is
killed in between, nobody else knows of the task: the next endpoint of the same name finds it here and answers it with
an error. `endpoint` writes before the ack (`accept`) and again when the result is stored (`finish`).

One file of short lines, `+ID` accepted and `-ID` finished, only ever appended to: two small writes per task also on a
network file system. When it has grown and most of it is past, it is replaced by one with the open tasks only.
"""

from __future__ import annotations

import os
from pathlib import Path

GROWN = 1 << 20
"""Bytes after which the file is written afresh, if at least half of them are past."""
LINE = 38
"""Bytes of one."""


class Journal:
    """The open tasks, kept in the file `path`. `leftover` holds those that an earlier endpoint left open."""

    def __init__(self, path: Path) -> None:
        """Reads or creates the file. Raises OSError when it cannot be used."""
        self.leftover = frozenset(_open_tasks(path.read_bytes() if path.exists() else b""))
        self._open = set(self.leftover)
        self._path = path
        self._fd, self._size = -1, 0
        self._start_afresh()

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, task_id: str) -> None:
        """Notes that the task is ours now. Raises OSError (disk or quota full); it is open all the same."""
        self._open.add(task_id)
        self._write(f"+{task_id}\n")

    def finish(self, task_id: str) -> None:
        """Notes that the task is answered. Raises OSError; it is closed all the same."""
        self._open.discard(task_id)
        if self._size > max(GROWN, 2 * LINE * len(self._open)):
            self._start_afresh()
        else:
            self._write(f"-{task_id}\n")

    def _write(self, text: str) -> None:
        self._size += os.write(self._fd, text.encode())

    def _start_afresh(self) -> None:
        new = self._path.with_name(self._path.name + ".new")
        new.write_text("".join(f"+{task_id}\n" for task_id in self._open))
        new.chmod(0o600)
        fd = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        new.rename(self._path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, LINE * len(self._open)


def _open_tasks(content: bytes) -> set[str]:
    tasks: set[str] = set()
    for line in content.decode(errors="replace").splitlines():
        if line.startswith("+") and len(line) == 37:
            tasks.add(line[1:])
        elif line.startswith("-"):
            tasks.discard(line[1:])
    return tasks
