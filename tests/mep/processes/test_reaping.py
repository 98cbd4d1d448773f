"""Children are reaped without waiting, also those that somebody else holds on to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time

from mep.processes import reaping

_PTRACE_SEIZE = 0x4206


async def reaped(pid: int, during: float = 0.0) -> tuple[int, float]:
    """Exit code of a child, and the longest time in seconds that the loop stood still meanwhile."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def then(code: int, usage: resource.struct_rusage) -> None:
        done.set_result(code)

    reaping.when_ended(pid, os.pidfd_open(pid), then)
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
