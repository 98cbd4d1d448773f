"""The audit trail: one JSON line per decision, in `audit_log_path`. The log has each decision, too, in its own form.

Lines are for programs and for years later: `time`, `event`, `request`, and what the event knows (identity, account,
uid, pid, rule, stage, reason, status, seconds). Nothing secret is ever passed in. `pipeline` calls `record` for what
the manager decides; `task` is for what user endpoints say of their tasks, which goes to the file only.

The file is `audit_file`'s. From `start` on it is written by a process of its own, `audit_writer`, so that only who must
waits for the disk; before that, and in small programs, lines are written at once.

Lines that cannot be written are an error in the log, once for each new reason, and the next line that is written says
how many are missing (`lost_lines`). When auditing is required (`high_assurance: true`), the caller gets an AuditError
instead of going on: from `record` and `task`, or from `confirm`, which waits until lines are on the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mep.monitor.audit_file import AuditError, AuditFile, line_of
from mep.monitor.audit_writer import AuditWriter
from mep.processes.printable import as_ascii
from mep.profile.config import ManagerConfig
from mep.request.account import Account

log = logging.getLogger("mep.audit")

MAX_TASK_RECORD = 2048
"""Bytes that are kept of what a user endpoint says of a task."""
CLOSE_TIMEOUT = 5.0
"""Seconds that the disk has for the last lines when the manager stops."""

_MOMENT = 1.0
"""Seconds for which what has been refused is not told while its line is not in the file."""
_TASK = re.compile(
    r"fid=(?P<function>[\w-]{0,64}) tid=(?P<task>[\w-]{1,64}) bid=(?P<block>[\w.-]{0,64})"
    r"(?: jid=(?P<job>[\w.:@\[\]-]{1,128}))? (?P<action>[A-Z_]{1,32})(?: - (?P<message>.*))?",
    re.ASCII,
)
_UNWELCOME = frozenset({"refused", "withdrawn", "counted"})
"""Events that are warnings in the log."""
_PLAIN = re.compile(r"[\w.@:/+-]+", re.ASCII)


@dataclass(frozen=True)
class Line:
    """One that was handed over. size: its bytes. outcome: comes later; why it is not in the file, or empty."""

    size: int = 0
    outcome: asyncio.Future[str] | None = None


class AuditTrail:
    """Appends to `path`; without one, lines go to the log alone. See the module for the rest.

    required: nothing may happen that is not on record. patience: gives the seconds that `confirm` waits for a decision.
    second: the file that has records of tasks in the public package's form, and the endpoint's id; written from `start`
    on. lost_ever: how many lines could not be written.

    Raises AuditError from the constructor, required or not: `path` cannot be opened or is not trusted; required
    without a path.
    """

    def __init__(
        self,
        path: Path | None,
        required: bool = False,
        patience: Callable[[], float] = lambda: ManagerConfig.start_patience,
        second: tuple[Path, str] | None = None,
    ) -> None:
        if required and path is None:
            raise AuditError("high_assurance: true needs an audit trail; set audit_log_path in config.yaml")
        self._required = required
        self._patience = patience
        self._path = path
        self._file = None if path is None else AuditFile(path, log.warning)
        self._second = ("", "") if second is None else (str(second[0]), second[1])
        if second is not None:
            AuditFile(second[0], log.warning).close()  # whether it can be
        self._writer: AuditWriter | None = None
        self._lost = 0
        self._trouble = ""
        self.lost_ever = 0

    def start(self) -> None:
        """Has lines written by a process of its own from now on. In the event loop; `stop` ends that."""
        if self._file is not None:
            self._writer = AuditWriter(self._file, sync=self._required, told=self._told, second=self._second)

    async def stop(self) -> None:
        """Waits until all lines are in the file, but not for ever."""
        if self._writer is not None:
            await self._writer.stop(CLOSE_TIMEOUT)
            self._writer = None

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def record(self, event: str, request_id: str, **facts: object) -> Line:
        """Adds the line of a decision. Raises AuditError when it is required and known not to be on the disk."""
        level = logging.WARNING if event in _UNWELCOME else logging.INFO
        known = {"event": event, "request": request_id, **facts}
        log.log(level, "%s", _for_people(event, request_id, facts), extra={"facts": known})
        return self._add(line_of(known), of_task=False)

    def task(
        self, request_id: str, endpoint: str, account: Account, record: bytes, *, uep: str = "", pid: int = 0
    ) -> Line:
        """Adds what a user endpoint said of a task: `fid=FUNCTION tid=TASK bid=BLOCK[ jid=JOB] ACTION[ - MESSAGE]`.

        It comes from a user's process, so nothing in it is believed: who speaks is told by the caller, and a record of
        another form is kept as `text`, of which nothing is read. Not in the log, where others' lines could drown in it,
        and not forced to the disk, which would let one user hold up everybody. The last of the file system is not for
        it.

        Raises AuditError when it is required and known not to have been written.
        """
        said = as_ascii(record[:MAX_TASK_RECORD])
        match = _TASK.fullmatch(said)
        facts: dict[str, object] = {"endpoint": endpoint, "account": account.name, "uid": account.uid}
        facts |= {"uep": uep, "pid": pid}
        facts |= {key: value for key, value in match.groupdict().items() if value} if match else {"text": said}
        if len(record) > MAX_TASK_RECORD:
            facts["cut_off_bytes"] = len(record) - MAX_TASK_RECORD
        return self._add(line_of({"event": "task", "request": request_id, **facts}), of_task=True)

    async def confirm(self, line: Line) -> None:
        """Waits until a decision is on the disk; returns at once where that is not required.

        Raises:
            AuditError: it is not, or the disk has not answered in time; then it may get there later.
        """
        if not self._required or line.outcome is None:
            return
        seconds = self._patience()
        done, _ = await asyncio.wait({line.outcome}, timeout=seconds)
        if not done:
            raise AuditError(
                f"its disk has not confirmed the line within {seconds:g} s (start_patience); does it hang?"
            )
        if why := line.outcome.result():
            raise AuditError(why)

    async def written(self, line: Line) -> None:
        """Waits a moment until a line is in the file, whatever becomes of it."""
        if line.outcome is not None:
            await asyncio.wait({line.outcome}, timeout=_MOMENT)

    async def confirm_tasks(self, lines: list[Line]) -> None:
        """Waits until lines of tasks are in the file, however long that takes: their user endpoint waits, too.

        Raises:
            AuditError: it is required, and one of them is not.
        """
        outcomes = [await line.outcome for line in lines if line.outcome is not None]
        if self._required and (why := next(filter(None, outcomes), "")):
            raise AuditError(why)

    def trouble(self) -> str:
        """Why lines are not written now, and how many are missing; empty when all is well."""
        waits = self._writer.waits() if self._writer is not None else ""
        failed = f"{self._trouble} ({self._lost} lines lost)" if self._lost else ""
        return f"audit trail: {failed or waits}" if failed or waits else ""

    def _add(self, line: bytes, *, of_task: bool) -> Line:
        if self._file is None:
            return Line()
        if self._writer is not None:
            return Line(len(line), self._writer.send(line, of_task=of_task))
        try:
            self._file.write(line, of_task=of_task)
            if self._required and not of_task:
                self._file.sync()
        except AuditError as e:
            self._told(str(e))
            if self._required:
                raise
        else:
            self._told("")
        return Line(len(line))

    def _told(self, why: str) -> None:
        """What became of a line: why it was not written, or empty."""
        if not why:
            if self._lost:
                log.warning("audit lines are written to %s again; %d were lost", self._path, self._lost)
            self._lost, self._trouble = 0, ""
            return
        self._lost += 1
        self.lost_ever += 1
        if why != self._trouble:
            log.error("audit line could not be written: %s", why)
            self._trouble = why


def _for_people(event: str, request_id: str, facts: dict[str, object]) -> str:
    """A decision for people: what was decided and why comes first. What strangers have named is quoted."""
    known = dict(facts)
    stage, reason = known.pop("stage", None), known.pop("reason", None)
    text = f"[{request_id}] {event}{f' at stage {stage}' if stage else ''}{f': {reason}' if reason else ''}"
    more = [f"{name}={_plain(value)}" for name, value in known.items() if value is not None]
    return f"{text} ({' '.join(more)})" if more else text


def _plain(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(value, default=str)
