"""A process by its pidfd, which names this process and no other, also after its end.

In the monitor, the render server, and commands of root. The caller owns the pidfd, and may signal what it names.
"""

from __future__ import annotations

import contextlib
import select
import signal


def send_signal(pidfd: int, number: int) -> None:
    """Signals the process; nothing happens when it has ended.

    Raises:
        PermissionError: it belongs to somebody whom this process may not signal.
    """
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def has_ended(pidfd: int, within: float = 0.0) -> bool:
    """Whether the process has ended, or does so within that many seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within * 1000))
