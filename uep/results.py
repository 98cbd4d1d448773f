"""Results on disk until the broker has confirmed them.

One directory, mode 0700. A file holds one or more results, those that came while the last file was being written; it
is named by the first of their tasks. It is written under another name, synced, renamed, and the directory is synced:
it appears whole or not at all, and what `put` has taken outlives a crash of the machine. A sync costs about the same
for one result as for a hundred, and much on a network file system: hence the groups. A file goes with the last of its
results. What is left is sent again at the next connection, or by the next endpoint of the same name.

Inside, each result is a line `TASK-ID LENGTH` and then that many bytes.
"""

from __future__ import annotations

import errno
import logging
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """Where in which file a result is; in bytes."""

    file: str
    offset: int
    length: int


class ResultStore:
    """A mapping of task id to packed result, kept in `directory`. One thread at a time may call its methods.

    `size` is the number of bytes of all files.
    """

    def __init__(self, directory: Path) -> None:
        """Creates the directory. Raises OSError when it cannot be used."""
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parts: dict[str, _Part] = {}
        self._tasks: dict[str, set[str]] = {}
        self._sizes: dict[str, int] = {}
        self.size = 0
        for torn in directory.glob(".*.new"):
            torn.unlink(missing_ok=True)
        for name in self._oldest_first():
            self._find(name)

    def __len__(self) -> int:
        return len(self._parts)

    def ids(self) -> list[str]:
        """The tasks whose results are kept, oldest first."""
        return list(self._parts)

    def put(self, results: Sequence[tuple[str, bytes]]) -> None:
        """Keeps the packed results of these tasks, all or none of them, in one new file.

        Raises:
            OSError: disk or quota full, say.
        """
        name = results[0][0]
        if name in self._tasks:
            name = str(uuid.uuid4())
        pieces = [piece for task_id, packed in results for piece in (_header(task_id, packed), packed)]
        new = self._directory / f".{name}.new"
        try:
            _write(new, pieces)
            new.rename(self._directory / name)
            _sync_directory(self._fd)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        offset = 0
        self._add(name, sum(map(len, pieces)))
        for task_id, packed in results:
            offset += len(_header(task_id, packed))
            self._note(task_id, _Part(name, offset, len(packed)))
            offset += len(packed)

    def get(self, task_id: str) -> bytes:
        """The packed result of a task. Raises OSError; FileNotFoundError when there is none."""
        part = self._parts.get(task_id)
        if part is None:
            raise FileNotFoundError(errno.ENOENT, "no result of this task is kept")
        with (self._directory / part.file).open("rb") as file:
            file.seek(part.offset)
            packed = file.read(part.length)
        if len(packed) != part.length:
            raise FileNotFoundError(errno.ENOENT, "the end of the file is missing")
        return packed

    def discard(self, task_ids: Iterable[str]) -> None:
        """Forgets these results; harmless where there is none. Raises OSError when a file cannot be removed."""
        for task_id in task_ids:
            part = self._parts.pop(task_id, None)
            if part is not None:
                self._leave(part.file, task_id)

    def _leave(self, name: str, task_id: str) -> None:
        tasks = self._tasks[name]
        tasks.discard(task_id)
        if not tasks:
            del self._tasks[name]
            self.size -= self._sizes.pop(name)
            (self._directory / name).unlink(missing_ok=True)

    def _oldest_first(self) -> list[str]:
        entries = [e for e in os.scandir(self._directory) if is_task_id(e.name)]
        return [e.name for e in sorted(entries, key=lambda e: e.stat().st_mtime_ns)]

    def _find(self, name: str) -> None:
        """Notes what is in a file; only the lines are read."""
        with (self._directory / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._add(name, size)
            while line := file.readline(100):
                task_id, _, length = line.decode(errors="replace").rstrip("\n").partition(" ")
                part = _Part(name, file.tell(), int(length) if length.isdecimal() else size)
                if not is_task_id(task_id) or part.offset + part.length > size:
                    log.error("file %s among the kept results is damaged from byte %d on", name, part.offset)
                    return
                self._note(task_id, part)
                file.seek(part.length, os.SEEK_CUR)

    def _add(self, name: str, size: int) -> None:
        self._tasks[name] = set()
        self._sizes[name] = size
        self.size += size

    def _note(self, task_id: str, part: _Part) -> None:
        before = self._parts.get(task_id)
        self._parts[task_id] = part
        self._tasks[part.file].add(task_id)
        if before is not None and before.file != part.file:
            self._leave(before.file, task_id)


def is_task_id(name: str) -> bool:
    """Whether `name` is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def sync_directory_of(path: Path) -> None:
    """Makes a rename of `path` outlive a crash. Raises OSError."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync_directory(fd)
    finally:
        os.close(fd)


def _sync_directory(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that need no sync of a directory
            raise


def _header(task_id: str, packed: bytes) -> bytes:
    return b"%s %d\n" % (task_id.encode(), len(packed))


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.writelines(pieces)
        os.fsync(fd)
    finally:
        os.close(fd)
