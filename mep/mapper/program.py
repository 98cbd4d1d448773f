"""Runs one mapping program under tight limits: the runner that `identity` is given.

    await run(["/opt/site/map", "-a"], b"...", None) -> b"..."   (its standard output)

Called in the manager's process, with its rights, by `mep.mapper.mapping` and `mep.cli.dry_run` through `identity`.

The program and every directory on its path must belong to root (or to this process's user) and be writable by nobody
else. It runs in its own session, in `/`, with a fixed environment. Standard input is a memory file, so a program that
never reads cannot block us. When its main process has ended nobody waits for children it left behind: the whole group
is killed, before the process is reaped, while its number cannot belong to anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import resource
import select
import signal
import stat
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from identity.printable import shown
from identity.runner import MapperError
from mep import trust

TIME_LIMIT = 5.0
"""Seconds from the start of the program to its end."""
GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL when a program is stopped, and then until its end is waited for no longer."""
MAX_STDOUT = 64 * 1024
MAX_STDERR = 8 * 1024
AT_ONCE = 4
"""Most programs that run at the same time in one event loop."""
LIMITS = {
    resource.RLIMIT_CPU: 5,
    resource.RLIMIT_AS: 1 << 30,
    resource.RLIMIT_FSIZE: 64 << 20,
    resource.RLIMIT_CORE: 0,
}
"""Seconds of processor time, and bytes of memory, of a file and of a core file, for each process."""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


async def run(argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
    """The standard output of a successful run. At most AT_ONCE run at a time; others wait for their turn.

    account: what it runs as, for who may do that (root); with the account's groups.

    Raises:
        MapperError: not trustworthy, not startable, failed, too slow, or too much output.
    """
    slot = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    async with slot:
        process = _Run(argv[0])
        try:
            check_trusted(argv[0])
            process.start(argv, stdin, account)
            await asyncio.wait_for(process.end(), TIME_LIMIT)
        except (TimeoutError, asyncio.TimeoutError):
            raise MapperError(f"{shown(argv[0])} took longer than {TIME_LIMIT:g} seconds") from None
        except OSError as e:
            raise MapperError(f"{shown(argv[0])} cannot be run: {e.strerror}") from None
        finally:
            status = await process.finish()
        return process.answer(status)


def check_trusted(program: str) -> None:
    """Nobody but root or this process's user may be able to change the program, or the way to it.

    Raises:
        MapperError: somebody else could put another program there, or it is no executable file.
    """
    if not program.startswith("/"):
        raise MapperError(f"{shown(program)} is not an absolute path")
    try:
        status = trust.check(Path(program))
    except trust.Untrusted as e:
        raise MapperError(str(e)) from None
    except OSError as e:
        raise MapperError(f"{shown(program)}: {e.strerror}") from None
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise MapperError(f"{shown(program)} is not an executable file")


class _Output:
    """One output pipe: what came so far, up to its limit."""

    def __init__(self, limit: int) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.write_end, True)
        self.data = b""
        self._limit = limit

    def read(self) -> bool:
        """Takes what is there. False at the end, or when there is too much."""
        try:
            more = os.read(self.read_end, 65536)
        except BlockingIOError:
            return True
        self.data += more[: self._limit + 1 - len(self.data)]
        return bool(more) and not self.full

    @property
    def full(self) -> bool:
        return len(self.data) > self._limit

    def drain(self) -> None:
        """Takes what is left in the pipe without waiting: at most its limit."""
        while not self.full:
            try:
                more = os.read(self.read_end, 65536)
            except BlockingIOError:
                return
            if not more:
                return
            self.data += more[: self._limit + 1 - len(self.data)]


class _Run:
    def __init__(self, name: str) -> None:
        self._name = shown(name)
        self._process: subprocess.Popen[bytes] | None = None
        self._outputs: tuple[_Output, ...] = ()
        self._stopped = asyncio.Event()
        self._pidfd = -1

    def start(self, command: Sequence[str], stdin: bytes, account: str | None) -> None:
        """Starts the process; opens and listens to its output."""
        self._outputs = (_Output(MAX_STDOUT), _Output(MAX_STDERR))
        memory = os.memfd_create("identities")
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(stdin)
            os.lseek(memory, 0, os.SEEK_SET)
            self._process = self._popen(command, memory, account)
        finally:
            for fd in (memory, *(output.write_end for output in self._outputs)):
                os.close(fd)
        for output in self._outputs:
            asyncio.get_running_loop().add_reader(output.read_end, self._readable, output)
        # A pidfd and not a thread that waits: the manager forks, so it must stay a process of one thread.
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._stopped.set)

    def _popen(self, command: Sequence[str], memory: int, account: str | None) -> subprocess.Popen[bytes]:
        try:
            who = {} if account is None else _ids(account)
            # Not asyncio's own: it reaps a process before we can kill its group, and may wait for its pipes.
            return subprocess.Popen(
                command,
                stdin=memory,
                stdout=self._outputs[0].write_end,
                stderr=self._outputs[1].write_end,
                env=ENVIRONMENT,
                cwd="/",
                umask=0o077,
                start_new_session=True,
                preexec_fn=_limit,
                **who,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as e:
            raise MapperError(
                f"{self._name} cannot be started: {getattr(e, 'strerror', None) or 'bad argument'}"
            ) from None

    def _readable(self, output: _Output) -> None:
        if not output.read():
            asyncio.get_running_loop().remove_reader(output.read_end)
            if output.full:
                self._stopped.set()

    async def end(self) -> None:
        """Until the main process has ended (it is not reaped yet) or has written too much."""
        await self._stopped.wait()

    async def finish(self) -> int | None:
        """Stops whatever is left of the group and closes the pipes.

        Returns:
            The exit status, negative for a signal; None if there was no process, or its status is not known.
        """
        loop = asyncio.get_running_loop()
        try:
            return None if self._process is None else await self._reap(self._process)
        finally:
            for output in self._outputs:
                loop.remove_reader(output.read_end)
                output.drain()
                os.close(output.read_end)
            if self._pidfd >= 0:
                loop.remove_reader(self._pidfd)
                os.close(self._pidfd)

    async def _reap(self, process: subprocess.Popen[bytes]) -> int | None:
        """Ends the group before the main process is reaped, while its number can be nobody else's."""
        try:
            if not self._ended():
                _signal_group(process.pid, signal.SIGTERM)
                await self._wait_for_end(GRACE)
        finally:
            _signal_group(process.pid, signal.SIGKILL)
        await self._wait_for_end(GRACE)
        try:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            process.returncode = -signal.SIGKILL  # somebody else reaped it; Popen itself would call that a success
            return None
        if pid == 0:  # held by the kernel in a file operation; a later Popen reaps it
            return None
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode

    def _ended(self) -> bool:
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def _wait_for_end(self, seconds: float) -> None:
        if self._ended():
            return
        self._stopped.clear()
        for output in self._outputs:  # a program that writes too much must not end the wait
            asyncio.get_running_loop().remove_reader(output.read_end)
        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    def answer(self, status: int | None) -> bytes:
        """The standard output, if all went well."""
        out, err = self._outputs
        if out.full or err.full:
            raise MapperError(f"{self._name} wrote more than {MAX_STDOUT} bytes, or {MAX_STDERR} to standard error")
        if status != 0:
            said = shown(err.data.decode("utf-8", "replace").strip(), 300)
            raise MapperError(f"{self._name} ended with status {status} and said {said}")
        return out.data


def _ids(account: str) -> dict[str, Any]:
    """Uid and groups of an account, as Popen takes them. Raises ValueError."""
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        raise ValueError(f"no account {account}") from None
    groups = os.getgrouplist(account, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _limit() -> None:
    """In the child before its exec, so that nothing of it runs without them."""
    for limit, most in LIMITS.items():
        hard = resource.getrlimit(limit)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # only if somebody else reaped it and it left no children
        os.killpg(group, number)
