"""Reaps children of this process, in the event loop and without ever waiting for one.

A child whose pidfd says that it has ended is not always there to be reaped: its user may have it traced, and then only
the tracer sees its end. Waiting for that would hold up everybody.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable

RETRY = 1.0
"""Seconds until a child that is held by a tracer is looked at again."""


def when_ended(pid: int, pidfd: int, then: Callable[[int, resource.struct_rusage], None]) -> None:
    """Calls `then` with exit code (negative for a signal) and resource use, once; closes `pidfd` before."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        loop.remove_reader(pidfd)
        reaped, status, usage = os.wait4(pid, os.WNOHANG)
        if reaped == 0:
            loop.call_later(RETRY, look)
            return
        os.close(pidfd)
        then(os.waitstatus_to_exitcode(status), usage)

    loop.add_reader(pidfd, look)


def forget(pid: int, pidfd: int) -> None:
    """Reaps it when it ends; nobody wants to know how."""
    when_ended(pid, pidfd, lambda _code, _usage: None)
