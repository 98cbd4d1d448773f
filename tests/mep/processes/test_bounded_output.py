"""Output of real programs: all of it, up to the limit, and never waited for."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess

import pytest

from lab.process import signal_ours
from lab.waiting import aiountil
from mep.processes.bounded_output import BoundedOutput


def run(script: str, limit: int) -> tuple[bytes, bool]:
    """What a shell writes, and whether it was too much."""

    async def work() -> tuple[bytes, bool]:
        with BoundedOutput(limit) as output, subprocess.Popen(["sh", "-c", script], stdout=output.writing) as process:
            output.started()
            await aiountil(lambda: process.poll() is not None or output.overflow.done(), "its end")
            process.kill()
            return output.rest(), output.overflow.done()

    return asyncio.run(work())


def test_all_comes_up_to_the_limit() -> None:
    assert run("printf abc", 3) == (b"abc", False)
    assert run("printf ''", 3) == (b"", False)
    assert run("head -c 1000000 /dev/zero", 1_000_000) == (bytes(1_000_000), False)


def test_more_than_the_limit_is_told_and_not_kept() -> None:
    data, overflow = run("exec yes", 1000)
    assert overflow
    assert len(data) <= 1000 + 2**16


def test_who_else_may_still_write_is_not_waited_for() -> None:
    data, overflow = run("sleep 60 & echo $!", 100)
    signal_ours(int(data), signal.SIGKILL)
    assert not overflow


def test_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    run("printf abc", 1)
    assert os.listdir("/proc/self/fd") == before


def test_without_memory_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOMEM, "no memory for the loop's epoll")

        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="no memory"), BoundedOutput(1):
            pass
        assert os.listdir("/proc/self/fd") == before

    asyncio.run(work())
