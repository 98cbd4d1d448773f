"""Supervised processes: real programs of another account, their ends, and what they leave behind."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from lab.waiting import aiountil
from mep.processes.pidfd import has_ended
from mep.processes.supervised import NotStarted, SupervisedProcess
from mep.request.launch_spec import LaunchSpec

pytestmark = pytest.mark.usefixtures("root")

T = TypeVar("T")
NOBODY = pwd.getpwnam("nobody")


def spec(*argv: str, out: int = 2) -> LaunchSpec:
    return LaunchSpec(
        argv=argv,
        environment={"PATH": "/usr/bin:/bin"},
        username="nobody",
        uid=NOBODY.pw_uid,
        gid=NOBODY.pw_gid,
        groups=(NOBODY.pw_gid,),
        directory="/",
        log=None,
        descriptors={0: 2, 1: out, 2: 2},
    )


def run(work: Callable[[], Awaitable[T]]) -> T:
    """What the work gives; afterwards no descriptor is left open."""

    async def both() -> T:
        before = os.listdir("/proc/self/fd")
        found = await work()
        assert os.listdir("/proc/self/fd") == before
        return found

    return asyncio.run(both())


def test_the_exit_code_is_told_and_it_is_reaped() -> None:
    async def work() -> None:
        process = await SupervisedProcess.start(spec("/bin/sh", "-c", "exit 3"))
        assert await process.ended == 3
        assert not Path(f"/proc/{process.pid}").exists()
        process.kill()  # whoever has the number now is not meant
        process.terminate()
        await process.end()

    run(work)


def test_it_runs_as_the_account_and_leads_a_group() -> None:
    async def work() -> None:
        process = await SupervisedProcess.start(spec("/bin/sleep", "60"))
        assert Path(f"/proc/{process.pid}").stat().st_uid == NOBODY.pw_uid
        assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid
        assert not await process.wait(0.01)
        await process.end()
        assert process.ended.result() == -signal.SIGKILL

    run(work)


@pytest.mark.parametrize("ending", ["by itself", "killed", "terminated"])
def test_nothing_of_its_group_outlives_it(ending: str) -> None:
    async def work() -> None:
        reading, writing = os.pipe()
        wait = "" if ending == "by itself" else "wait"
        process = await SupervisedProcess.start(spec("/bin/sh", "-c", f"sleep 60 & echo $!; {wait}", out=writing))
        os.close(writing)
        left = int(os.read(reading, 99))
        os.close(reading)
        try:
            pidfd = os.pidfd_open(left)
        except ProcessLookupError:
            assert ending == "by itself"
            pidfd = -1
        if ending == "killed":
            process.kill()
        elif ending == "terminated":
            process.terminate()
        await process.ended
        if pidfd >= 0:
            assert has_ended(pidfd, within=20)
            os.close(pidfd)

    run(work)


@pytest.mark.parametrize(
    ("wrong", "step", "reason"),
    [
        ({"argv": ("/no/such/program",)}, "exec", "No such file"),
        ({"directory": "/nowhere"}, "home", "No such file"),
        ({"username": "no-such-account"}, "account", "no such account"),
        ({"uid": 0}, "", "is root"),
        ({"groups": (0,)}, "", "root's group"),
    ],
)
def test_what_is_not_started_is_told_with_its_step(wrong: dict[str, object], step: str, reason: str) -> None:
    async def work() -> None:
        with pytest.raises(NotStarted, match=reason) as caught:
            await SupervisedProcess.start(replace(spec("/bin/true"), **wrong))  # type: ignore[arg-type]
        assert caught.value.step == step

    run(work)


def test_whoever_gives_up_a_start_leaves_nothing() -> None:

    children = Path(f"/proc/self/task/{os.getpid()}/children")

    async def work() -> None:
        before = children.read_text()
        for _ in range(20):
            task = asyncio.ensure_future(SupervisedProcess.start(spec("/bin/sleep", "60")))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await aiountil(lambda: children.read_text() == before, "the end of all of them")

    run(work)


def test_without_memory_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")

    async def work() -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOMEM, "no memory for the loop's epoll")

        before, open_before = children.read_text(), set(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
            with pytest.raises(NotStarted, match="no memory"):
                await SupervisedProcess.start(spec("/bin/sleep", "60"))
        await aiountil(lambda: children.read_text() == before, "the end of the process")
        await aiountil(lambda: set(os.listdir("/proc/self/fd")) == open_before, "its descriptors closed")

    run(work)
