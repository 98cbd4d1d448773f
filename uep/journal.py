"""Which tasks this endpoint has accepted and not yet answered, on disk.

A task is acknowledged to the broker when it is handed to the engine, long before it has a result. If the endpoint is
killed in between, nobody else knows of the task: the next endpoint of the same name finds it here and answers it with
an error. `endpoint` writes before the ack (`accept`) and again when the result is stored (`finish`).

One file of short lines, `+ID` accepted and `-ID` finished, only ever appended to: two small writes per task also on a
network file system. It starts afresh whenever no task is open and it has grown.
"""

from __future__ import annotations

import os
from pathlib import Path

FRESH_START_AT = 1 << 20
"""Bytes of a journal without open tasks that are thrown away."""


class Journal:
    """The open tasks, kept in the file `path`. `leftover` holds those that an earlier endpoint left open."""

    def __init__(self, path: Path) -> None:
        """Reads or creates the file. Raises OSError when it cannot be used."""
        self.leftover = frozenset(_open_tasks(path.read_bytes() if path.exists() else b""))
        self._open = set(self.leftover)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(self._fd, b"\n")  # ends a line that was torn

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, task_id: str) -> None:
        """Notes that the task is ours now. Raises OSError (disk or quota full); it is open all the same."""
        self._open.add(task_id)
        os.write(self._fd, f"+{task_id}\n".encode())

    def finish(self, task_id: str) -> None:
        """Notes that the task is answered. Raises OSError; it is closed all the same."""
        self._open.discard(task_id)
        if not self._open and os.fstat(self._fd).st_size > FRESH_START_AT:
            os.ftruncate(self._fd, 0)
        else:
            os.write(self._fd, f"-{task_id}\n".encode())


def _open_tasks(content: bytes) -> set[str]:
    tasks: set[str] = set()
    for line in content.decode(errors="replace").splitlines():
        if line.startswith("+") and len(line) == 37:
            tasks.add(line[1:])
        elif line.startswith("-"):
            tasks.discard(line[1:])
    return tasks
