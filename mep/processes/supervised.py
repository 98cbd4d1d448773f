"""A Python module of ours that runs as a process of its own, under an account without rights.

What is slow, or handles what strangers wrote, is done in such a process. It is reached through one socket, which is
its descriptor 0; what it says on its standard output and error goes to ours. `account.Directory` has one (`Worker`);
`renderer` has one too, and talks to it in another way (`launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import sys
from dataclasses import dataclass

from mep.privileged.launch import Started, start
from mep.privileged.spec import LaunchRefused
from mep.processes import reaping
from mep.processes.report import read_report
from mep.request.launch_spec import LaunchSpec

END_TIMEOUT = 5.0
"""Seconds that a killed worker has to be gone. One that is held by a tracer takes longer; nobody waits for that."""


class WorkerUnavailable(Exception):
    """A worker cannot be started. The text says why and what to do; `exit_code` is one of os.EX_*."""

    def __init__(self, text: str, exit_code: int = os.EX_TEMPFAIL) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(eq=False)
class Worker:
    """A running worker process and the socket to it. It is reaped when it ends, whoever ended it."""

    pid: int
    pidfd: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Event

    @classmethod
    async def start(cls, module: str, account_name: str, max_line: int) -> Worker:
        """Runs `module` as the account. A line that it sends has at most `max_line` bytes (see `StreamReader`).

        Raises:
            WorkerUnavailable: there is no such account, or a step of the launch failed.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours, limit=max_line)
            try:
                started = launch(module, account_name, theirs)
            except BaseException:
                writer.close()
                raise
        worker = cls(started.pid, started.pidfd, reader, writer, asyncio.Event())
        reaping.when_ended(worker.pid, worker.pidfd, lambda _code, _usage: worker.ended.set())
        try:
            failure = await read_report(started.report)
        except BaseException:
            await worker.end()
            raise
        if failure is not None:
            await worker.end()
            reason = f"step {failure.step}: {failure.text}"
            raise WorkerUnavailable(f"cannot start {module} as account {account_name!r}: {reason}")
        return worker

    def kill(self) -> None:
        """Kills it, unless it has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    async def end(self) -> None:
        """Kills it, closes the socket, and waits until it is gone. May be called again."""
        self.kill()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.ended.wait(), END_TIMEOUT)


def launch(module: str, account_name: str, theirs: socket.socket) -> Started:
    """Starts `module` as the account, with `theirs` as its descriptor 0. Raises WorkerUnavailable."""
    try:
        return start(_spec(module, account_name, theirs.fileno()))
    except (LaunchRefused, OSError) as e:
        raise WorkerUnavailable(f"cannot start {module} as account {account_name!r}: {e}") from None


def _spec(module: str, account_name: str, connection: int) -> LaunchSpec:
    try:
        entry = pwd.getpwnam(account_name)
    except (KeyError, ValueError):
        reason = f"no account {account_name!r} on this system; set render_account in config.yaml"
        raise WorkerUnavailable(reason, os.EX_CONFIG) from None
    return LaunchSpec(
        argv=(sys.executable, "-I", "-m", module),
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"},
        username=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=(entry.pw_gid,),
        directory="/",
        log=None,
        descriptors={0: connection, 1: 2, 2: 2},
    )
