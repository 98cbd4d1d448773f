"""Writes to files so that it outlives a crash, for the journal and the store of results."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync_directory_of(path: Path) -> None:
    """Makes the making or a rename of `path` outlive a crash.

    Raises:
        OSError: the directory cannot be synced.
    """
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that need no sync of a directory
            raise
    finally:
        os.close(fd)


def write_at(fd: int, offset: int, content: bytes) -> None:
    """Writes all of `content`, from `offset` on.

    Raises:
        OSError: disk or quota full, say.
    """
    left = memoryview(content)
    while left:
        done = os.pwrite(fd, left, offset)
        left, offset = left[done:], offset + done
