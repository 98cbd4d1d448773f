"""What a user endpoint reads on descriptor 0: put together in the child, after the drop, as the user.

The monitor says in which order the parts come. What it must not know, passwords, it holds in sealed files that it has
not read: here they are, by the one who is to have them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from mep.privileged.memory_file import fill, seal, unsealed

_CHUNK = 2**16


def put_together(parts: Sequence[bytes | int]) -> int:
    """A descriptor of a new sealed file in memory with these bytes, and the content of these open files, in order.

    Raises OSError: no memory to be had, or the limit of the account for files is lower than what it is to read.
    """
    descriptor = unsealed("handover")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file in memory counts as one: an error is reported, a signal not
    for part in parts:
        if isinstance(part, bytes):
            fill(descriptor, part)
            continue
        size = os.fstat(part).st_size
        for at in range(0, size, _CHUNK):  # others hold the same open file, so its position is nobody's
            fill(descriptor, os.pread(part, min(_CHUNK, size - at), at))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    seal(descriptor)
    return descriptor
