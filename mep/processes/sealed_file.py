"""A file in memory that nobody can change any more: standard input for a program of another account.

Unlike a pipe it has no limit, and nobody has to wait until it has been read. Made in the monitor: for the hand-over to
a user endpoint, and for the question to a mapping program.
"""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, data: bytes) -> int:
    """A descriptor of a sealed file with `data`, to be read from its beginning. `name` is what /proc shows.

    Raises:
        OSError: no descriptor or memory to be had; nothing stays open.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
