"""A loopback interface of one's own, for a test run: every port is free, and nothing can be reached from outside.

The thread that asks for it moves into a new network namespace, and with it everything that it starts afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def enter_private_network() -> bool:
    """Moves this thread there; False when the kernel does not allow it. Call it before another thread is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = b"lo".ljust(16, b"\0")
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, name + struct.pack("H", 0) + bytes(14))
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, name + struct.pack("H", flags | _IFF_UP) + bytes(14))
    return True


def processes() -> list[int]:
    """The pids of all that runs on this thread's network: of one test run, when others run beside it."""
    own, found = Path("/proc/thread-self/ns/net").stat(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.samestat(own, (entry / "ns" / "net").stat()):
                found.append(int(entry.name))
    return found
