"""The audit trail: one JSON line per decision, in `audit_log_path`. The log has each decision, too, in its own form.

Lines are for programs and for years later: `time`, `event`, `request`, and what the event knows (identity, account,
uid, pid, rule, stage, reason, status, seconds). Nothing secret is ever passed in. `pipeline` calls `record` for what
the manager decides; `task` is for what user endpoints say of their tasks, which goes to the file only.

The file is root's, nobody else can write to it or lead it elsewhere, and it is only ever appended to. logrotate may
rename it, remove it or truncate it under the manager (`create` or `copytruncate`). A line is one write. One that was
cut off, on a full disk or by a crash, stays as a line that is no JSON: the next one begins on a line of its own.
Several managers may write to one file; then a line may be empty, when one begins while another is writing.

Lines that cannot be written are an error in the log, once for each new reason, and the next line that is written says
how many are missing (`lost_lines`). When auditing is required (`high_assurance: true`), the caller gets an AuditError
instead of going on, and a decision that was recorded is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shlex
import stat
from datetime import datetime, timezone
from pathlib import Path

from mep.processes.printable import as_ascii
from mep.profile import trust
from mep.request.account import Account

log = logging.getLogger("mep.audit")

MAX_TASK_RECORD = 2048
"""Bytes that are kept of what a user endpoint says of a task."""
RESERVE = 20
"""Tasks are not written to the last twentieth of the file system: that is for what the manager decides."""

_TASK = re.compile(
    r"fid=(?P<function>[\w-]{0,64}) tid=(?P<task>[\w-]{1,64}) bid=(?P<block>[\w.-]{0,64})"
    r" (?P<action>[A-Z_]{1,32})(?: - (?P<message>.*))?",
    re.ASCII,
)
_UNWELCOME = frozenset({"refused", "withdrawn", "counted"})
"""Events that are warnings in the log."""
_PLAIN = re.compile(r"[\w.@:/+-]+", re.ASCII)
_REMEDIES = {
    errno.ENOENT: "make its folder, root's and with mode 0750",
    errno.EISDIR: "audit_log_path must name a file, and this is a folder",
    errno.ELOOP: "a symbolic link is not followed; put the path of the file itself into audit_log_path",
    errno.ENXIO: "it is no regular file; remove it, or change audit_log_path",
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "make room in root's quota",
}


class AuditError(OSError):
    """The audit trail cannot be kept. The text names the file, the reason and the remedy."""


class AuditTrail:
    """Appends to `path`; without one, lines go to the log alone. See the module for the rest.

    required: nothing may happen that is not on record: `record` and `task` raise what they otherwise only log.

    Raises AuditError from the constructor, required or not: `path` cannot be opened or is not trusted; required
    without a path.
    """

    def __init__(self, path: Path | None, required: bool = False) -> None:
        if required and path is None:
            raise AuditError("high_assurance: true needs an audit trail; set audit_log_path in config.yaml")
        self._path = path
        self._required = required
        self._file: int | None = None
        self._torn = False
        self._lost = 0
        self._trouble = ""
        if path is not None:
            self._current(path)

    def record(self, event: str, request_id: str, **facts: object) -> None:
        """Adds the line of a decision. Raises AuditError when it is required and not on the disk now."""
        level = logging.WARNING if event in _UNWELCOME else logging.INFO
        known = {"event": event, "request": request_id, **facts}
        log.log(level, "%s", _told(event, request_id, facts), extra={"facts": known})
        self._add(self._line(known), sync=self._required)

    def task(self, request_id: str, endpoint: str, account: Account, record: bytes) -> int:
        """Adds what a user endpoint said of a task: `fid=FUNCTION tid=TASK bid=BLOCK ACTION[ - MESSAGE]`, one record.

        It comes from a user's process, so nothing in it is believed: who speaks is told by the caller, and a record of
        another form is kept as `text`. Not in the log, where others' lines could drown in it, and not forced to the
        disk, which would let one user hold up everybody. The last of the file system is not for it.

        Returns the bytes of the line. Raises AuditError when it is required and was not written.
        """
        said = as_ascii(record[:MAX_TASK_RECORD])
        match = _TASK.fullmatch(said)
        facts: dict[str, object] = {"endpoint": endpoint, "account": account.name, "uid": account.uid}
        facts |= {key: value for key, value in match.groupdict().items() if value} if match else {"text": said}
        if len(record) > MAX_TASK_RECORD:
            facts["cut_off_bytes"] = len(record) - MAX_TASK_RECORD
        line = self._line({"event": "task", "request": request_id, **facts})
        self._add(line, sync=False, of_task=True)
        return len(line)

    def trouble(self) -> str:
        """Why lines are not written now, and how many are missing; empty when all is well."""
        return f"audit trail: {self._trouble} ({self._lost} lines lost)" if self._lost else ""

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _line(self, facts: dict[str, object]) -> str:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        lost = {"lost_lines": self._lost} if self._lost else {}
        return json.dumps({"time": now, **facts, **lost}, default=str)

    def _add(self, line: str, *, sync: bool, of_task: bool = False) -> None:
        if self._path is None:
            return
        try:
            self._write(self._path, line, sync, of_task)
        except AuditError as e:
            self._failed(e)
        else:
            self._worked()

    def _write(self, path: Path, line: str, sync: bool, of_task: bool) -> None:
        file = self._current(path)
        try:
            if of_task:
                _leave_reserve(file)
            self._append(file, line.encode() + b"\n")
            if sync:
                os.fdatasync(file)
        except OSError as e:
            raise _error(path, e) from None

    def _append(self, file: int, line: bytes) -> None:
        data = b"\n" + line if self._torn else line
        written = os.write(file, data)
        self._torn = not data[:written].endswith(b"\n")
        if written < len(data):
            raise OSError(errno.ENOSPC, "only a part of the line could be written")

    def _failed(self, error: AuditError) -> None:
        self._lost += 1
        if str(error) != self._trouble:
            log.error("audit line could not be written: %s", error)
            self._trouble = str(error)
        if self._required:
            raise error

    def _worked(self) -> None:
        if self._lost:
            log.warning("audit lines are written to %s again; %d were lost", self._path, self._lost)
            self._lost, self._trouble = 0, ""

    def _current(self, path: Path) -> int:
        """The descriptor of what has the name now: logrotate renames, and the next line makes a new file."""
        if self._file is not None and not _has_name(self._file, path):
            self.close()
        if self._file is None:
            self._file = _open(path)
            self._torn = _ends_torn(self._file)
            self._tell_names(path, self._file)
        return self._file

    def _tell_names(self, path: Path, file: int) -> None:
        """Says, in trail and log, that the file has other names: harmless, and not how it was made."""
        if (names := os.fstat(file).st_nlink) > 1:
            reason = f"{path} {_has_names(path, names)}"
            log.warning("%s", reason)
            with contextlib.suppress(OSError):  # what cannot be written is told of the next line
                self._append(file, self._line({"event": "hard link", "reason": reason}).encode() + b"\n")


def _told(event: str, request_id: str, facts: dict[str, object]) -> str:
    """A decision for people: what was decided and why comes first. What strangers have named is quoted."""
    known = dict(facts)
    stage, reason = known.pop("stage", None), known.pop("reason", None)
    text = f"[{request_id}] {event}{f' at stage {stage}' if stage else ''}{f': {reason}' if reason else ''}"
    more = [f"{name}={_plain(value)}" for name, value in known.items() if value is not None]
    return f"{text} ({' '.join(more)})" if more else text


def _plain(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(value, default=str)


def _open(path: Path) -> int:
    """Opens or makes the file, if it and the way to it are root's alone. Raises AuditError.

    The folders come first: when only root can change them, what is opened is what was looked at.
    """
    # Not blocking: nobody may be waiting at the other end of what is no file. Readable: the last byte is looked at.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        folder = trust.check(path.parent)
        file = os.open(path, flags, 0o600)
    except trust.Untrusted as e:
        raise AuditError(f"{path}: {e}") from None
    except OSError as e:
        raise _error(path, e) from None
    if problem := _problem(path, os.fstat(file), folder):
        os.close(file)
        raise AuditError(f"{path}: {problem}")
    return file


def _problem(path: Path, status: os.stat_result, folder: os.stat_result) -> str | None:
    """What is wrong with the file that was opened, with the remedy.

    Where fs.protected_hardlinks is 0, others can give a file of root's another name wherever they can write: then the
    trail would be written to any file of root's. A name elsewhere gives nobody anything.
    """
    name = shlex.quote(str(path))
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file; remove it, or change audit_log_path"
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}, not to root; mend it: chown root {name}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others than root may write to it; mend it: chmod go-w {name}"
    if status.st_nlink > 1 and folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{_has_names(path, status.st_nlink)}, and others may write to its folder; choose another one"
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
