"""Children are reaped without waiting, also those that somebody else holds on to."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time
from pathlib import Path

from lab.waiting import aiountil
from mep.processes import reaping
from mep.processes.pidfd import has_ended

_PTRACE_SEIZE = 0x4206


async def reaped(pid: int, *, leads_group: bool = False) -> int:
    """Exit code of a child."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()

    def then(code: int, usage: resource.struct_rusage) -> None:
        done.set_result(code)

    reaping.when_ended(pid, os.pidfd_open(pid), then, leads_group=leads_group)
    return await done


def child(code: int) -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(0.3)
        os._exit(code)
    return pid


def test_the_exit_code_is_told() -> None:
    assert asyncio.run(reaped(child(3))) == 3
    pid = child(0)
    os.kill(pid, signal.SIGTERM)
    assert asyncio.run(reaped(pid)) == -signal.SIGTERM


def test_one_that_is_traced_by_another_process_holds_nobody_up(root: None, no_hang: None) -> None:
    """Its end is seen by the tracer only, for as long as that likes; a user can do that to a process of theirs.

    Here the tracer likes it until the loop, which goes on, has told it to end.
    """
    pid = child(4)
    until_told, tell = os.pipe()
    tracer = os.fork()
    if tracer == 0:
        failed = ctypes.CDLL(None).ptrace(_PTRACE_SEIZE, pid, None, None)
        os.read(until_told, 1)
        os._exit(bool(failed))

    async def work() -> int:
        end = asyncio.ensure_future(reaped(pid))
        await aiountil(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "its end")
        for _ in range(3):
            await asyncio.sleep(0)  # the loop has seen it by now
        assert not end.done()
        os.write(tell, b"x")
        return await end

    assert asyncio.run(work()) == 4
    assert os.waitstatus_to_exitcode(os.waitpid(tracer, 0)[1]) == 0, "it did trace"


def test_a_status_that_somebody_else_took_is_no_success() -> None:
    async def work() -> int:
        pid = child(0)
        ended = asyncio.ensure_future(reaped(pid))
        await asyncio.sleep(0)
        os.waitpid(pid, 0)
        return await ended

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
    assert asyncio.run(reaped(pid, leads_group=True)) == 7
    assert has_ended(pidfd, within=20)
    os.close(pidfd)


def of_group(pid: int, leader: int) -> bool:
    """Whether the process is of the group, and is not its leader."""
    try:
        return os.getpgid(pid) == leader != pid
    except ProcessLookupError:
        return False
