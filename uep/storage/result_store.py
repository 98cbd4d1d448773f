"""Keeps results on disk until the broker has confirmed them.

One directory, mode 0700, with files that results are appended to. What `put` has taken is synced: it outlives a crash
of the machine. A sync costs about the same for one result as for a hundred, and much on a network file system: hence
`put` takes many. Making and removing files costs more than writing: a result is not a file of its own, and a file whose
results are all confirmed is written again from its beginning. What is left is sent again in the next session, or by the
next endpoint of the same name.

A result in a file is a line of `HEADER` bytes, `+TASK-ID NUMBER LENGTH CHECKSUM`, and LENGTH bytes after it. Numbers
go up by one: where they do not, what follows is from before the file was written again, or torn by a crash. The `+`
becomes `-` when the result is confirmed. That is not synced; a crash of the machine may have a few results sent again.
Neither is, at once, what the journal notes then: confirmed results stay readable until it has been synced.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from uep.storage.files import sync_directory_of, write_at

log = logging.getLogger(__name__)

HEADER = 75
"""Bytes of the line before a result."""
_LINE = re.compile(rb"[+-]([0-9a-f-]{36}) ([0-9a-f]{16}) (\d{10}) [0-9a-f]{8}\n")
LONG_ENOUGH = 1 << 20
"""Bytes after which a file is written again from its beginning, once there is no result left in it."""
TOO_LONG = 16 << 20
"""Bytes after which another file is begun."""


class _Part(NamedTuple):
    """Where a result is; in bytes from the beginning of its line."""

    file: _File
    offset: int
    length: int


@dataclass(eq=False)
class _File:
    """An open file: `end` is where the next result goes, `results` is the number of those not confirmed yet."""

    path: Path
    fd: int
    end: int = 0
    results: int = 0


class ResultStore:
    """A mapping of task id to packed result, kept in `directory`. One thread at a time may call its methods.

    `confirmed` are tasks whose results an earlier endpoint found confirmed, as far as they are still to be seen.
    """

    def __init__(self, directory: Path, before_reuse: Callable[[], None] = lambda: None) -> None:
        """Creates the directory. `before_reuse` is called before confirmed results can be seen no more.

        Raises:
            OSError: the directory cannot be used.
        """
        self.confirmed: set[str] = set()
        self._before_reuse = before_reuse
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._parts: dict[str, _Part] = {}
        self._files: list[_File] = []
        self._current: _File | None = None
        self._number = 0
        for path in sorted(path for path in directory.iterdir() if path.name.isdecimal()):
            self._find(path)
        self._next_name = 1 + max((int(file.path.name) for file in self._files), default=0)

    def __len__(self) -> int:
        return len(self._parts)

    @property
    def size(self) -> int:
        """Counts the bytes in all files."""
        return sum(file.end for file in self._files)

    def ids(self) -> list[str]:
        """Lists the tasks whose results are kept, oldest first."""
        return list(self._parts)

    def put(self, results: Sequence[tuple[str, bytes]]) -> None:
        """Keeps the packed results of these tasks, all or none of them.

        Raises:
            OSError: disk or quota full, say.
        """
        file = self._file_to_write()
        pieces: list[bytes] = []
        for number, (task_id, packed) in enumerate(results, self._number + 1):
            pieces += (_line(task_id, number, packed), packed)
        write_at(file.fd, file.end, b"".join(pieces))
        os.fdatasync(file.fd)
        self._number += len(results)
        replaced = []
        for task_id, packed in results:
            if task_id in self._parts:
                replaced.append(self._parts.pop(task_id))
            self._parts[task_id] = _Part(file, file.end, len(packed))
            file.end += HEADER + len(packed)
            file.results += 1
        for part in replaced:
            self._mark(part)

    def get(self, task_id: str) -> bytes:
        """Reads the packed result of a task.

        Raises:
            FileNotFoundError: there is none, or not any more.
            OSError: it cannot be read.
        """
        part = self._parts.get(task_id)
        if part is None:
            raise FileNotFoundError(errno.ENOENT, "no result of this task is kept")
        packed = os.pread(part.file.fd, part.length, part.offset + HEADER)
        if len(packed) != part.length:
            raise FileNotFoundError(errno.ENOENT, "the end of the file is missing")
        return packed

    def discard(self, task_ids: Iterable[str]) -> None:
        """Forgets these results; harmless where there is none.

        Raises:
            OSError: a file cannot be written.
        """
        for task_id in task_ids:
            part = self._parts.pop(task_id, None)
            if part is not None:
                self._mark(part)

    def _mark(self, part: _Part) -> None:
        """Marks a result, in its file, as one that is not kept any more."""
        part.file.results -= 1
        write_at(part.file.fd, part.offset, b"-")
        if part.file is not self._current:
            self._close_if_empty(part.file)

    def _file_to_write(self) -> _File:
        file = self._current
        if file is not None and file.results == 0 and file.end >= LONG_ENOUGH:
            self._before_reuse()
            os.ftruncate(file.fd, LONG_ENOUGH)
            file.end = 0
        if file is None or file.end >= TOO_LONG or not _is_there(file.fd):
            self._current = file = self._new_file()
            for other in [each for each in self._files if each is not file]:
                self._close_if_empty(other)
        return file

    def _new_file(self) -> _File:
        path = self._directory / f"{self._next_name:09}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._next_name += 1
        self._files.append(file := _File(path, fd))
        sync_directory_of(path)
        return file

    def _close_if_empty(self, file: _File) -> None:
        if file.results == 0:
            self._before_reuse()
            self._files.remove(file)
            os.close(file.fd)
            file.path.unlink(missing_ok=True)

    def _find(self, path: Path) -> None:
        """Notes what is in a file of an earlier endpoint."""
        self._files.append(file := _File(path, os.open(path, os.O_RDWR | os.O_CLOEXEC)))
        for task_id, number, offset, length, kept in results_in(file.fd):
            self._number = max(self._number, number)
            file.end = offset + HEADER + length
            if not kept:
                self.confirmed.add(task_id)
            else:
                if task_id in self._parts:
                    self._parts.pop(task_id).file.results -= 1
                self._parts[task_id] = _Part(file, offset, length)
                file.results += 1
        if file.end == 0 and os.fstat(file.fd).st_size > 0:
            log.error("file %s among the kept results is damaged: removed", path.name)


def _is_there(fd: int) -> bool:
    """Tells whether nobody has removed the open file, on a file server perhaps."""
    try:
        return os.fstat(fd).st_nlink > 0
    except OSError:
        return False


def _line(task_id: str, number: int, packed: bytes) -> bytes:
    line = b"%s %016x %010d" % (task_id.encode(), number, len(packed))
    return b"+%s %08x\n" % (line, zlib.crc32(packed, zlib.crc32(line)))


def results_in(fd: int) -> Iterator[tuple[str, int, int, int, bool]]:
    """Reads a file: task id, number, offset, length, and whether it is not confirmed yet, of each result."""
    size, offset, before = os.fstat(fd).st_size, 0, None
    while match := _LINE.fullmatch(line := os.pread(fd, HEADER, offset)):
        task_id, number, length = match[1].decode(), int(match[2], 16), int(match[3])
        if offset + HEADER + length > size or (before is not None and number != before + 1):
            return
        if line[1:] != _line(task_id, number, os.pread(fd, length, offset + HEADER))[1:]:
            return
        yield task_id, number, offset, length, line[:1] == b"+"
        offset, before = offset + HEADER + length, number
