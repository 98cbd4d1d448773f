"""A loopback interface of one's own, for a test run: every port is free, and nothing can be reached from outside.

The process moves into a new network namespace, and with it everything that it starts afterwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def enter_private_network() -> bool:
    """Moves this process there; False when the kernel does not allow it. Call it before any thread is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = b"lo".ljust(16, b"\0")
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, name + struct.pack("H", 0) + bytes(14))
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, name + struct.pack("H", flags | _IFF_UP) + bytes(14))
    return True
