"""Reaps children of this process, in the event loop and without ever waiting for one.

A child whose pidfd says that it has ended is not always there to be reaped: its user may have it traced, and then only
the tracer sees its end. Waiting for that would hold up everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable

from mep.processes.pidfd import send_signal

RETRY = 1.0
"""Seconds until a child that is held by a tracer is looked at again."""
UNKNOWN = 255
"""The exit code of a child whose own was lost, since something else in this process reaped it. It is no success."""

Then = Callable[[int, resource.struct_rusage], None]


def when_ended(pid: int, pidfd: int, then: Then, *, leads_group: bool = False) -> None:
    """Calls `then` with exit code (negative for a signal) and resource use, once; closes `pidfd` before.

    leads_group: kills what the child has left behind in its process group, before it is reaped: until then no other
    group can have its number.

    Raises:
        OSError: there is no memory to watch it with; it is killed, and reaped later.
    """
    loop = asyncio.get_running_loop()

    def look() -> None:
        loop.remove_reader(pidfd)
        try:
            if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                loop.call_later(RETRY, look)
                return
        except ChildProcessError:
            os.close(pidfd)
            then(UNKNOWN, resource.struct_rusage([0] * 16))
            return
        if leads_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, os.WNOHANG)
        os.close(pidfd)
        then(os.waitstatus_to_exitcode(status), usage)

    try:
        loop.add_reader(pidfd, look)
    except OSError:  # nobody could ever reap this child
        send_signal(pidfd, signal.SIGKILL)
        loop.call_later(RETRY, look)
        raise


def forget(pid: int, pidfd: int) -> None:
    """Reaps it when it ends; nobody wants to know how."""
    when_ended(pid, pidfd, lambda _code, _usage: None)
