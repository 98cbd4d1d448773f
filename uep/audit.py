"""Tells the manager of a high-assurance endpoint what became of each task, in audit records.

One write per record on the descriptor of the hand-over, `fid=FUNCTION tid=TASK bid=BLOCK [jid=JOB ]ACTION[ -
message]`, with the public package's actions RECEIVED, EXEC_START, RUNNING, EXEC_END and FAILED; the manager adds time
and endpoint. Block and batch job are those of Parsl's engines. A record that cannot be written ends the endpoint: it
may not work unaudited.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from select import PIPE_BUF

log = logging.getLogger(__name__)

LONGEST_ID = 64
"""Characters of a function's id: it is what a message says, and what is done comes after it."""


class Audit:
    """Writes to `fd`; without one it writes nothing. `on_failure` is called with the reason of a failed write."""

    def __init__(self, fd: int | None, on_failure: Callable[[str], None]) -> None:
        self._fd = fd
        self._on_failure = on_failure

    def record(
        self, action: str, task_id: str, function_id: object, message: str = "", *, block: str = "", job: str = ""
    ) -> None:
        """Tells the manager of one task, in one line. `function_id` and `message` may hold anything."""
        if self._fd is None:
            return
        where = f"fid={str(function_id or '')[:LONGEST_ID]} tid={task_id} bid={block} {f'jid={job} ' if job else ''}"
        text = f"{where}{action}" + (f" - {message}" if message else "")
        try:
            line = " ".join(text.replace("\0", "").split("\n")).replace("\r", "").encode(errors="replace")
            os.write(self._fd, line[:PIPE_BUF])  # what is longer would be read as further records
        except OSError as e:
            self._on_failure(f"audit record cannot be written: {e.strerror}")
