"""Reads logs for people: the end of a file, lines that name a request, what is added. Root's own files only.

A user's file is read by `user_log`, as that user. Whatever is in a line, it steers no terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mep.processes.printable import escaped

_END = 2**20
"""Bytes of the end of a log in which its last errors, or lines, are looked for."""
_PERIOD = 0.5
_LEVELS = ("ERROR", "CRITICAL")


def older(path: Path) -> list[Path]:
    """A log and those before it, whoever has moved them (`monitor.log_file`, logrotate), the oldest first."""
    found = [each for each in path.parent.glob(f"{path.name}*") if not each.name.endswith((".gz", ".xz", ".zst"))]
    with contextlib.suppress(OSError):
        return sorted(found, key=lambda each: each.stat().st_mtime)
    return [path]


def last(path: Path, count: int) -> list[str]:
    """The last lines of a log. Raises OSError."""
    return [escaped(line) for line in _end(path).splitlines()[-count:]] if count else []


def last_errors(path: Path, count: int) -> list[str]:
    """The last errors of a log; none when it cannot be read."""
    found: deque[str] = deque(maxlen=count)
    with contextlib.suppress(OSError):
        for line in _end(path).splitlines():
            if any(level in line for level in _LEVELS) and (told := _error(line)):
                found.append(escaped(told))
    return list(found)


def naming(paths: list[Path], text: str) -> Iterator[str]:
    """The lines that have this text in them. What is gone or no file is left out. Raises PermissionError."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
            for line in file:
                if text.encode() in line:
                    yield escaped(line.decode("utf-8", "replace").rstrip("\n"))


def follow(path: Path) -> Iterator[str]:
    """Lines that are added from now on, also once another file has the log's name. Never ends."""
    file = path.open("rb")
    try:
        file.seek(0, os.SEEK_END)
        begun = b""
        while True:
            if part := file.readline():
                begun += part
                if begun.endswith(b"\n"):
                    yield escaped(begun.decode("utf-8", "replace").rstrip("\n"))
                    begun = b""
                continue
            if _has_been_moved(file.fileno(), path):
                file.close()
                file = path.open("rb")
                continue
            time.sleep(_PERIOD)
    finally:
        file.close()


def _has_been_moved(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _end(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END))
        return file.read(_END).decode("utf-8", "replace")


def _error(line: str) -> str:
    """The time and text of an error, in either form of the log (`daemon.logs`); nothing for another line."""
    if line.startswith("{"):
        said: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(line)
        if isinstance(said, dict) and {"time", "level", "message"} <= said.keys():
            return f"{said['time']}: {said['message']}" if said["level"] in _LEVELS else ""
    words = line.split(" ", 4)
    return f"{words[0]} {words[1]}: {words[4]}" if len(words) > 4 and words[2] in _LEVELS else ""
