"""What a user endpoint reads on descriptor 0: put together in the child, after the drop, as the user.

The monitor says in which order the parts come. What it must not know, passwords, it holds in sealed files that it has
not read: here they are, by the one who is to have them.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK = 2**16


def put_together(parts: Sequence[bytes | int]) -> int:
    """A descriptor of a new sealed file in memory with these bytes, and the content of these open files, in order.

    Raises OSError: no memory to be had, or the limit of the account for files is lower than what it is to read.
    """
    descriptor = os.memfd_create("handover", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file in memory counts as one: an error is reported, a signal not
    for part in parts:
        if isinstance(part, bytes):
            _write(descriptor, part)
            continue
        size = os.fstat(part).st_size
        for at in range(0, size, _CHUNK):  # others hold the same open file, so its position is nobody's
            _write(descriptor, os.pread(part, min(_CHUNK, size - at), at))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
