"""The folder of a user endpoint, `/run/mep/NAME/UEP`, and the pipes in it: memory, root's, gone with the next boot.

    state.json    which process, of whom, in which state (see `record`)
    credentials   what the user endpoint reads when it has to connect again (see `credentials`)
    pipe          on which it reports: lines `ready` after its first heartbeat, `working` after its first result,
                  `stopping` when it takes no more tasks, `stopped` before it ends cleanly
    audit         with high assurance: on which it tells of each task, a record with each write

`spawn` makes one, the user endpoint gets the writing ends, `endpoint_pipes` reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

_FILES = ("state.json", "state.new", "credentials", "pipe", "audit")


def make(folder: Path, *, audited: bool) -> tuple[int, int | None]:
    """A new folder with its pipes; their reading ends. What was there before is deleted.

    Raises OSError: the folder cannot be made, or only a part of it; nothing stays open.
    """
    remove(folder)
    folder.mkdir(mode=0o700, parents=True)
    os.mkfifo(folder / "pipe", 0o600)
    if audited:
        os.mkfifo(folder / "audit", 0o600)
    return reading_ends(folder)


def reading_ends(folder: Path) -> tuple[int, int | None]:
    """Descriptors of pipe and audit, which never wait; None where there is no audit. Raises OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    pipe = os.open(folder / "pipe", flags)
    try:
        return pipe, os.open(folder / "audit", flags) if (folder / "audit").exists() else None
    except OSError:
        os.close(pipe)
        raise


def pipe_writing_end(folder: Path) -> int:
    """A descriptor of the pipe for the user endpoint.

    For both directions, so that a report is kept for the next manager while there is none; and never waiting, so that
    a pipe that is full holds nobody up.
    """
    return os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def audit_writing_end(folder: Path) -> int:
    """A descriptor of the pipe for audit records. For both directions, too, but waiting: a user endpoint does not go on
    before its record is on its way. Each write is a record, and is read as one (O_DIRECT, pipe(2))."""
    descriptor = os.open(folder / "audit", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove(folder: Path) -> None:
    """Deletes the folder: there is nothing left to adopt. Harmless when it is not there."""
    with contextlib.suppress(OSError):
        for name in _FILES:  # one by one: that needs no descriptor, of which there may be none left
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    shutil.rmtree(folder, ignore_errors=True)  # what else there may be in it
