"""Results on disk until the broker has confirmed them.

One directory, mode 0700, one file per task, named by the task's id, holding the packed result. A file appears whole
(written under another name first) or not at all. `outbox` writes before it publishes and discards on the confirm;
what is left is sent again at the next connection, or by the next endpoint of the same name.

Files are not synced to the disk: they outlive the process, not a crash of the machine.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path


class ResultStore:
    """A mapping of task id to packed result, kept in `directory`."""

    def __init__(self, directory: Path) -> None:
        """Creates the directory. Raises OSError when it cannot be used."""
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        for torn in directory.glob(".*.new"):
            torn.unlink(missing_ok=True)

    def put(self, task_id: str, packed: bytes) -> None:
        """Keeps `packed`, replacing an earlier result of the same task. Raises OSError (disk or quota full)."""
        new = self._directory / f".{task_id}.new"
        try:
            _write(new, packed)
            new.rename(self._directory / task_id)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def discard(self, task_id: str) -> None:
        """Forgets the result; harmless when there is none."""
        (self._directory / task_id).unlink(missing_ok=True)

    def ids(self) -> list[str]:
        """The tasks whose results are kept, oldest first."""
        entries = [e for e in os.scandir(self._directory) if _is_task_id(e.name)]
        return [e.name for e in sorted(entries, key=lambda e: e.stat().st_mtime_ns)]

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Each kept result, read when it is its turn."""
        for task_id in self.ids():
            try:
                yield task_id, (self._directory / task_id).read_bytes()
            except FileNotFoundError:
                continue


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _is_task_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
