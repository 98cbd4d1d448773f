"""Children are reaped without waiting, also those that somebody else holds on to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time

from mep.processes import reaping
from mep.processes.pidfd import has_ended

_PTRACE_SEIZE = 0x4206


async def reaped(pid: int, *, leads_group: bool = False) -> tuple[int, float]:
    """Exit code of a child, and the longest time in seconds that the loop stood still meanwhile."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def then(code: int, usage: resource.struct_rusage) -> None:
        done.set_result(code)

    reaping.when_ended(pid, os.pidfd_open(pid), then, leads_group=leads_group)
    longest, last = 0.0, time.monotonic()
    while not done.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return done.result(), longest


def child(code: int) -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(0.3)
        os._exit(code)
    return pid


def test_the_exit_code_is_told() -> None:
    assert asyncio.run(reaped(child(3)))[0] == 3
    pid = child(0)
    os.kill(pid, signal.SIGTERM)
    assert asyncio.run(reaped(pid))[0] == -signal.SIGTERM


def test_one_that_is_traced_by_another_process_holds_nobody_up(root: None) -> None:
    """Its end is seen by the tracer only, for as long as that likes; a user can do that to a process of theirs."""
    pid = child(4)
    tracer = os.fork()
    if tracer == 0:
        failed = ctypes.CDLL(None).ptrace(_PTRACE_SEIZE, pid, None, None)
        time.sleep(2)
        os._exit(bool(failed))
    code, longest = asyncio.run(reaped(pid))
    assert code == 4
    assert longest < 0.5
    assert os.waitstatus_to_exitcode(os.waitpid(tracer, 0)[1]) == 0, "it did trace"


def test_a_status_that_somebody_else_took_is_no_success() -> None:
    async def work() -> int:
        pid = child(0)
        ended = asyncio.ensure_future(reaped(pid))
        await asyncio.sleep(0)
        os.waitpid(pid, 0)
        return (await ended)[0]

    assert asyncio.run(work()) == reaping.UNKNOWN != 0


def test_its_group_is_killed_before_it_is_reaped() -> None:
    """Whether it ends by itself or not; other groups are left alone."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(7)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (left,) = [entry for entry in map(int, filter(str.isdigit, os.listdir("/proc"))) if of_group(entry, pid)]
    pidfd = os.pidfd_open(left)
    assert asyncio.run(reaped(pid, leads_group=True))[0] == 7
    assert has_ended(pidfd, within=20)
    os.close(pidfd)


def of_group(pid: int, leader: int) -> bool:
    """Whether the process is of the group, and is not its leader."""
    try:
        return os.getpgid(pid) == leader != pid
    except ProcessLookupError:
        return False
