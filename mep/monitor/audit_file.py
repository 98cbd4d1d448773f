"""The file of the audit trail: root's, appended to and never changed, whole through rotation and full disks.

Nobody else can write to it or lead it elsewhere. logrotate may rename it, remove it or truncate it under the manager
(`create` or `copytruncate`). A line is one write. One that was cut off, on a full disk or by a crash, stays as a line
that is no JSON: the next one begins on a line of its own. Several managers may write to one file; then a line may be
empty, when one begins while another is writing.

Whoever writes here may wait for the disk: `audit_writer` does it in a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import stat
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from mep.profile import places
from mep.profile.errors import ConfigError

RESERVE = 20
"""Tasks are not written to the last twentieth of the file system: that is for what the manager decides."""
_REMEDIES = {
    errno.ENOENT: "make its folder, root's and with mode 0750",
    errno.EISDIR: "config.yaml must name a file, and this is a folder",
    errno.ELOOP: "a symbolic link is not followed; put the path of the file itself into config.yaml",
    errno.ENXIO: "it is no regular file; remove it, or change the path in config.yaml",
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "make room in root's quota",
}


class AuditError(OSError):
    """The audit trail cannot be kept. The text names the file, the reason and the remedy."""


class AuditFile:
    """Appends to `path`. lost: lines that were not written since the last one that was; the next one tells it.

    tell: hears what admins should read. opened: at once, and not with the first line.

    Raises AuditError from the constructor: `path` cannot be opened or is not trusted.
    """

    def __init__(self, path: Path, tell: Callable[[str], object], *, opened: bool = True) -> None:
        self.path = path
        self.lost = 0
        self._tell = tell
        self._file: int | None = None
        self._torn = False
        if opened:
            self._current()

    def write(self, line: bytes, *, of_task: bool = False) -> None:
        """Adds a line, a JSON object. Raises AuditError; the line is lost then, and counted."""
        told = self._with_lost(line) if self.lost else line
        try:
            self._write(told, of_task)
        except AuditError:
            self.lost += 1
            raise
        self.lost = 0

    def sync(self, lines: int = 1) -> None:
        """Waits until all is on the disk. Raises AuditError; then the last `lines` are lost, and counted."""
        try:
            if self._file is not None:
                os.fdatasync(self._file)
        except OSError as e:
            self.lost += lines
            raise _error(self.path, e) from None

    def close(self) -> None:
        """Closes the file; the next line opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _with_lost(self, line: bytes) -> bytes:
        return b'%s, "lost_lines": %d}' % (line[:-1], self.lost)

    def _write(self, line: bytes, of_task: bool) -> None:
        try:
            file = self._current()
            if of_task:
                _leave_reserve(file)
            self._append(file, line + b"\n")
        except AuditError:
            raise
        except OSError as e:
            raise _error(self.path, e) from None

    def _append(self, file: int, line: bytes) -> None:
        data = b"\n" + line if self._torn else line
        written = os.write(file, data)
        self._torn = not data[:written].endswith(b"\n")
        if written < len(data):
            raise OSError(errno.ENOSPC, "only a part of the line could be written")

    def _current(self) -> int:
        """The descriptor of what has the name now: logrotate renames, and the next line makes a new file."""
        if self._file is not None and not _has_name(self._file, self.path):
            self.close()
        if self._file is None:
            self._file = _open(self.path)
            self._torn = _ends_torn(self._file)
            self._tell_names(self._file)
        return self._file

    def _tell_names(self, file: int) -> None:
        """Says, in trail and log, that the file has other names: harmless, and not how it was made."""
        if (names := os.fstat(file).st_nlink) > 1:
            reason = f"{self.path} {_has_names(self.path, names)}"
            self._tell(reason)
            with contextlib.suppress(OSError):  # what cannot be written is told of the next line
                self._append(file, self._remark(reason) + b"\n")

    def _remark(self, reason: str) -> bytes:
        """A line about the file itself."""
        return line_of({"event": "hard link", "reason": reason})


def line_of(facts: dict[str, object]) -> bytes:
    """A line that begins with the time."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, **facts}, default=str).encode()


def _open(path: Path) -> int:
    """Opens or makes the file, if it and the way to it are root's alone. Raises AuditError.

    The folders come first: when only root can change them, what is opened is what was looked at.
    """
    # Not blocking: nobody may be waiting at the other end of what is no file. Readable: the last byte is looked at.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        places.check(path.parent)
        file = os.open(path, flags, 0o600)
    except ConfigError as e:
        raise AuditError(f"{path}: {e}") from None
    except OSError as e:
        raise _error(path, e) from None
    if problem := _problem(path, os.fstat(file)):
        os.close(file)
        raise AuditError(f"{path}: {problem}")
    return file


def _problem(path: Path, status: os.stat_result) -> str | None:
    """What is wrong with the file that was opened, with the remedy. Nobody else can have made it: `places`."""
    name = shlex.quote(str(path))
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file; remove it, or change the path in config.yaml"
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to root; mend it: chown root {name}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others than root may write to it; mend it: chmod go-w {name}"
    return None


def _has_names(path: Path, names: int) -> str:
    return f"has {names} names (hard links); remove the others: find / -xdev -samefile {shlex.quote(str(path))}"


def _error(path: Path, error: OSError) -> AuditError:
    remedy = _REMEDIES.get(error.errno or 0)
    return AuditError(f"{path}: {error.strerror}{f'; {remedy}' if remedy else ''}")


def _ends_torn(file: int) -> bool:
    """Whether what is in the file ends within a line: a manager died, or the disk was full."""
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def _leave_reserve(file: int) -> None:
    """Raises OSError when only the reserve is left."""
    system = os.fstatvfs(file)
    if system.f_bfree * RESERVE < system.f_blocks:
        raise OSError(errno.ENOSPC, f"the last {100 // RESERVE} % of its file system are not for tasks")


def _has_name(file: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except OSError:  # gone, or its folder is; whoever opens it anew tells why it cannot
        return False
    opened = os.fstat(file)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
