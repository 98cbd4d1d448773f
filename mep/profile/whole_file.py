"""A small file of ours, replaced as a whole: who reads it finds the old content or the new one, never a half."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Writes `content` into a new file beside `path`, for its owner only (mode 0600), and renames that.

    durable: the content is on the disk itself before the rename. The folder is the caller's: `sync`.

    Raises:
        OSError: it cannot be written; the old content stays, and no half that would keep room from others.
    """
    beside = path.with_suffix(".new")
    try:
        beside.unlink(missing_ok=True)  # of a process that was killed
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(descriptor)
        beside.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def sync(folder: Path) -> None:
    """Returns when what was renamed in the folder is on the disk itself. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
