"""What systemd gives the hub and is told by it: listening sockets (sd_listen_fds(3)), and readiness (sd_notify(3)).

Sockets that systemd holds are root's, whether the hub runs or not: nobody else can take its ports while it is down.
"""

from __future__ import annotations

import contextlib
import os
import socket

_FIRST_DESCRIPTOR = 3


def given_sockets() -> list[socket.socket]:
    """Takes the listening sockets that systemd has passed on; none when the hub was started otherwise."""
    count, whose = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if not count.isdecimal() or whose != str(os.getpid()):
        return []
    sockets = [socket.socket(fileno=_FIRST_DESCRIPTOR + number) for number in range(int(count))]
    for each in sockets:
        each.set_inheritable(False)
        each.setblocking(False)
    return sockets


def notify_ready() -> None:
    """Tells systemd that requests are taken."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)
