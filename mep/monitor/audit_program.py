"""The program that writes the audit trail: appends what the monitor hands over, and confirms what is on the disk.

With a second file it writes records of tasks there, too, in the public package's form.

PROCESS: root, since after a rotation the trail is opened anew. It has one socket, on descriptor 0, and nothing of the
monitor's memory. `audit_writer` starts it.

It takes what has come, appends line by line, waits once for the disk for all of them, and confirms them in their order.
It ends when its monitor is gone and what came from it is written.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from mep.monitor.audit_file import AuditError, AuditFile
from mep.monitor.public_audit import PublicAuditFile
from mep.privileged import kernel

LINE = struct.Struct("!QBIL")
"""Before a line: its number, whether it is of a task, how many before it were not sent, its bytes."""
ANSWER = struct.Struct("!QH")
"""Before a text: the number of the line, and the bytes of the text: why it was not written, if any."""
NOTICE = 0
"""In place of a number: the text is for the log."""
_NAME = Path("/proc/self/comm")
"""What it is called in ps."""
_AT_ONCE = 1 << 18


def main(path: str, sync: str, public: str, endpoint_id: str) -> None:
    """Writes the trail. sync: 1 when decisions are waited for on the disk. public: the second file, or empty."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # of a terminal, or of a whole group: its end is that of the monitor
    _NAME.write_text("mep-audit")
    kernel.set_dumpable(False)
    with socket.socket(fileno=0) as connection:
        serve(
            connection, Path(path), sync=sync == "1", public=Path(public) if public else None, endpoint_id=endpoint_id
        )


def serve(
    connection: socket.socket, path: Path, *, sync: bool, public: Path | None = None, endpoint_id: str = ""
) -> None:
    """Writes what comes through the connection until its end."""
    notices: list[str] = []
    file = AuditFile(path, tell=notices.append, opened=False)
    second = None if public is None else PublicAuditFile(public, endpoint_id, tell=notices.append)
    if second is not None:
        _try(second.begin, notices)
    came = bytearray()
    while chunk := connection.recv(_AT_ONCE):
        came += chunk
        outcomes = _write(list(_lines(came)), file, second, sync)
        told = [(NOTICE, text) for text in notices]
        notices.clear()
        with contextlib.suppress(OSError):  # the monitor is gone; what it has sent is written all the same
            connection.sendall(b"".join(_packed(*answer) for answer in [*told, *outcomes.items()]))
    if second is not None:
        _try(second.end, notices)


def _try(write: Callable[[], None], notices: list[str]) -> None:
    """A line between the records: when it cannot be written, the next record will say so."""
    try:
        write()
    except AuditError as e:
        notices.append(str(e))


def _lines(came: bytearray) -> Iterator[tuple[int, bool, int, bytes]]:
    """Takes whole lines from what has come."""
    while len(came) >= LINE.size:
        number, of_task, missing, size = LINE.unpack_from(came)
        if len(came) < LINE.size + size:
            return
        yield number, bool(of_task), missing, bytes(came[LINE.size : LINE.size + size])
        del came[: LINE.size + size]


def _write(
    lines: list[tuple[int, bool, int, bytes]], file: AuditFile, second: PublicAuditFile | None, sync: bool
) -> dict[int, str]:
    """Writes lines, records of tasks into both files, and waits once for the disk.

    Returns by number why each was not written, or nothing.
    """
    outcomes: dict[int, str] = {}
    for number, of_task, missing, line in lines:
        file.lost += missing
        try:
            file.write(line, of_task=of_task)
            if of_task and second is not None:
                second.copy(line)
            outcomes[number] = ""
        except AuditError as e:
            outcomes[number] = str(e)
    if sync and any(not of_task for _, of_task, _, _ in lines):
        try:
            file.sync(sum(not why for why in outcomes.values()))
        except AuditError as e:
            return {number: why or str(e) for number, why in outcomes.items()}
    return outcomes


def _packed(number: int, text: str) -> bytes:
    said = text.encode(errors="replace")[:4000]
    return ANSWER.pack(number, len(said)) + said


if __name__ == "__main__":
    main(*sys.argv[2:])
