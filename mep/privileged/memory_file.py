"""Files in memory: made, filled, and sealed, so that nobody can change them any more.

Called by the child between fork and exec (`handover`), and by everybody else through `processes.sealed_file`.
"""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def unsealed(name: str) -> int:
    """A descriptor of an empty file, for `fill` and `seal`. `name` is what /proc shows. Raises OSError."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def fill(descriptor: int, data: bytes) -> None:
    """Writes all of it, to whatever the descriptor is of. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def seal(descriptor: int) -> None:
    """Makes it final, and to be read from its beginning. Raises OSError: somebody else can still write to it."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
