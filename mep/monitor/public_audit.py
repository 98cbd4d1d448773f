"""The second file of a high-assurance endpoint: records of tasks in the form of the public package's `audit_log_path`.

    2026-11-29T19:30:00.123000+00:00 uid=1000 pid=4711 uep=UEP fid=FUNCTION tid=TASK bid=0 jid=12 RUNNING

`audit_program` makes each line of the line of the audit trail, which has been written before: the same record, made fit
by the same bounds. A record that is lost here is as one that is lost there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from mep.monitor.audit_file import AuditFile


class PublicAuditFile(AuditFile):
    """Appends to `path`. endpoint_id: of the manager, for the lines that say when its writer began and ended."""

    def __init__(self, path: Path, endpoint_id: str, tell: Callable[[str], object]) -> None:
        super().__init__(path, tell, opened=False)
        self._who = f"uid={os.getuid()} pid={os.getppid()} eid={endpoint_id}"

    def begin(self) -> None:
        """Says that a manager begins. Raises AuditError."""
        self.write(self._remark("Begin CEP session ====="))

    def end(self) -> None:
        """Says that the manager is gone. Raises AuditError."""
        self.write(self._remark("End CEP session -----"))

    def copy(self, line: bytes) -> None:
        """Adds a record that is a line of the audit trail. Raises AuditError."""
        self.write(in_public_form(json.loads(line)).encode(), of_task=True)

    def _remark(self, reason: str) -> bytes:
        return f"{_now()} {self._who} {reason}".encode()

    def _with_lost(self, line: bytes) -> bytes:
        return b"%s lost_lines=%d" % (line, self.lost)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="microseconds")


def in_public_form(facts: dict[str, object]) -> str:
    """The record of a task as the public package's manager writes it."""
    time = datetime.fromisoformat(str(facts["time"])).astimezone().isoformat(timespec="microseconds")
    return f"{time} uid={facts['uid']} pid={facts['pid']} uep={facts['uep']} {_said(facts)}"


def _said(facts: dict[str, object]) -> str:
    if "text" in facts:
        return str(facts["text"])
    job = f"jid={facts['job']} " if "job" in facts else ""
    message = f" - {facts['message']}" if "message" in facts else ""
    where = f"fid={facts.get('function', '')} tid={facts['task']} bid={facts.get('block', '')}"
    return f"{where} {job}{facts['action']}{message}"
