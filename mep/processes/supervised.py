"""A child of the monitor that runs as another account: started through the one privileged launch, reaped when it ends.

`helper` starts programs of ours so, and `monitor.stages.mapping_programs` those of the site. What is slow, or handles
what strangers wrote, is done in such a process. Each leads a process group, of which nothing outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from dataclasses import dataclass

from mep.privileged import launch
from mep.privileged.spec import LaunchRefused
from mep.processes import reaping, time_limit
from mep.processes.pidfd import send_signal
from mep.processes.report import read_report
from mep.request.launch_spec import LaunchSpec

END_TIMEOUT = 5.0
"""Seconds that a killed process has to be gone. One that is held by a tracer takes longer; nobody waits for that."""


class NotStarted(Exception):
    """The program was not executed, for this `reason`. step: the step that failed; empty when nothing was forked.

    given_up: the process that was killed because it took too long.
    """

    def __init__(self, text: str, step: str = "", given_up: SupervisedProcess | None = None) -> None:
        super().__init__(f"step {step}: {text}" if step else text)
        self.step = step
        self.reason = text
        self.given_up = given_up


@dataclass(eq=False)
class SupervisedProcess:
    """A running process. `ended` is done once it has been reaped, with its exit code (negative for a signal)."""

    pid: int
    pidfd: int
    ended: asyncio.Future[int]

    @classmethod
    async def start(cls, spec: LaunchSpec, within: float | None = None) -> SupervisedProcess:
        """Returns once the program has been executed. When this is cancelled, the process is killed.

        Raises:
            NotStarted: the launch was refused, a step of it failed, or it took longer than `within` seconds.
        """
        try:
            started = launch.start(spec)
        except (LaunchRefused, OSError) as e:
            raise NotStarted(str(e)) from None
        process = cls(started.pid, started.pidfd, asyncio.get_running_loop().create_future())
        try:
            reaping.when_ended(process.pid, process.pidfd, process._reaped, leads_group=True)
        except OSError as e:
            os.close(started.report)
            raise NotStarted(str(e)) from None
        try:
            failure = await time_limit.within(within, read_report(started.report))
        except asyncio.TimeoutError:
            process.kill()
            raise NotStarted(f"it did not start within {within:g} seconds", given_up=process) from None
        except BaseException:
            process.kill()
            raise
        if failure is not None:
            await process.end()
            raise NotStarted(failure.text, failure.step)
        return process

    def kill(self) -> None:
        """Kills it, and with it its process group, unless it has ended."""
        if not self.ended.done():
            send_signal(self.pidfd, signal.SIGKILL)

    def terminate(self) -> None:
        """Asks it and its process group to end, unless it has ended. The group's number is its own until then."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)

    async def end(self) -> None:
        """Kills it and waits until it is gone, at most END_TIMEOUT. May be called again."""
        self.kill()
        await self.wait(END_TIMEOUT)

    async def wait(self, seconds: float) -> bool:
        """Whether it has ended, or does so within that many seconds."""
        await asyncio.wait({self.ended}, timeout=seconds)
        return self.ended.done()

    def _reaped(self, exit_code: int, _usage: resource.struct_rusage) -> None:
        self.ended.set_result(exit_code)
