"""Tells systemd how the manager is doing (sd_notify(3)), when it was started by systemd; otherwise does nothing."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(**assignments: str) -> None:
    """Sends `KEY=value` lines to systemd, for example `notify(READY="1", STATUS="consuming")`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{key}={' '.join(value.split())}" for key, value in assignments.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(message.encode(errors="backslashreplace"), address)


def watchdog_period() -> float | None:
    """Seconds between the signs of life that systemd expects, with room to spare; None when it expects none."""
    microseconds, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or whose not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 3e6
