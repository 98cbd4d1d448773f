"""Runs one program under tight limits: the process side of external mapping.

    await run(["/opt/site/map", "-a"], b"...") -> b"..."   (its standard output)

The program and every directory on its path must belong to root (or to this process's user) and be writable by nobody
else. It runs in its own session, in `/`, with a fixed environment. Standard input is a memory file, so a program that
never reads cannot block us. When its main process has ended nobody waits for children it left behind: the whole group
is killed, before the process is reaped, while its number cannot belong to anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path

from identity.account_name import shown

TIME_LIMIT = 5.0
"""Seconds from the start of the program to its end."""
MAX_STDOUT = 64 * 1024
MAX_STDERR = 8 * 1024
AT_ONCE = 4
"""Most programs that run at the same time in one event loop."""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_MAX_LINKS = 40

_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


class MapperError(Exception):
    """An external program failed, or its answer is no answer: the request is refused, and may be tried again.

    The text is for the log: escaped, shortened, without identity records.
    """


async def run(command: Sequence[str], stdin: bytes) -> bytes:
    """The standard output of a successful run. At most AT_ONCE run at a time; others wait for their turn.

    Raises:
        MapperError: not trustworthy, not startable, failed, too slow, or too much output.
    """
    slot = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    async with slot:
        process = _Run(command[0])
        try:
            await asyncio.to_thread(check_trusted, command[0])
            process.start(command, stdin)
            await asyncio.wait_for(process.end(), TIME_LIMIT)
        except (TimeoutError, asyncio.TimeoutError):
            raise MapperError(f"{shown(command[0])} took longer than {TIME_LIMIT:g} seconds") from None
        except OSError as e:
            raise MapperError(f"{shown(command[0])} cannot be run: {e.strerror}") from None
        finally:
            status = await process.finish()
        return process.answer(status)


def check_trusted(program: str) -> None:
    """Follows the path from `/`, links included: nobody but root or this process's user may be able to change it.

    Raises:
        MapperError: somebody else could put another program there, or it is no executable file.
    """
    if not program.startswith("/"):
        raise MapperError(f"{shown(program)} is not an absolute path")
    links, at, todo = 0, Path("/"), list(Path(program).parts[1:])
    status = _lstat(at)
    _check_step(at, status)
    while todo:
        at, step = (at.parent if todo[0] == ".." else at / todo[0]), todo.pop(0)
        status = _lstat(at)
        _check_step(at, status)
        if step != ".." and stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise MapperError(f"{shown(program)} leads through too many links")
            target = Path(os.readlink(at))  # noqa: PTH115 - Path.readlink is the same, and this is what is checked
            at = Path("/") if target.is_absolute() else at.parent
            todo = [*(target.parts[1:] if target.is_absolute() else target.parts), *todo]
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise MapperError(f"{shown(program)} is not an executable file")


def _lstat(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as e:
        raise MapperError(f"{shown(str(path))}: {e.strerror}") from None


def _check_step(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise MapperError(f"{shown(str(path))} belongs to uid {status.st_uid}, not to root")
    # In a sticky directory of root, such as /tmp, only its owner can replace an entry; the entry's owner is checked.
    shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0
    if status.st_mode & 0o022 and not shared and not stat.S_ISLNK(status.st_mode):
        raise MapperError(f"{shown(str(path))} is writable by others than its owner")


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
        self._too_much = asyncio.Event()

    def start(self, command: Sequence[str], stdin: bytes) -> None:
        """Starts the process; opens and listens to its output."""
        self._outputs = (_Output(MAX_STDOUT), _Output(MAX_STDERR))
        memory = os.memfd_create("identities")
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(stdin)
            os.lseek(memory, 0, os.SEEK_SET)
            self._process = self._popen(command, memory)
        finally:
            for fd in (memory, *(output.write_end for output in self._outputs)):
                os.close(fd)
        for output in self._outputs:
            asyncio.get_running_loop().add_reader(output.read_end, self._readable, output)

    def _popen(self, command: Sequence[str], memory: int) -> subprocess.Popen[bytes]:
        try:
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
            )
        except (OSError, ValueError) as e:
            raise MapperError(
                f"{self._name} cannot be started: {getattr(e, 'strerror', None) or 'bad argument'}"
            ) from None

    def _readable(self, output: _Output) -> None:
        if not output.read():
            asyncio.get_running_loop().remove_reader(output.read_end)
            if output.full:
                self._too_much.set()

    async def end(self) -> None:
        """Until the main process has ended (it is not reaped yet) or has written too much."""
        assert self._process is not None
        waits = {
            asyncio.ensure_future(asyncio.to_thread(os.waitid, os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)),
            asyncio.ensure_future(self._too_much.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def finish(self) -> int | None:
        """Kills whatever is left of the group and closes the pipes. The exit status, None if there was no process."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
        for output in self._outputs:
            asyncio.get_running_loop().remove_reader(output.read_end)
            output.drain()
            os.close(output.read_end)
        if self._process is None:
            return None
        # A killed process ends at once, unless the kernel holds it in a file operation; then a later Popen reaps it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, 1.0)
        return self._process.returncode

    def answer(self, status: int | None) -> bytes:
        """The standard output, if all went well."""
        out, err = self._outputs
        if out.full or err.full:
            raise MapperError(f"{self._name} wrote more than {MAX_STDOUT} bytes, or {MAX_STDERR} to standard error")
        if status != 0:
            said = shown(err.data.decode("utf-8", "replace").strip(), 300)
            raise MapperError(f"{self._name} ended with status {status} and said {said}")
        return out.data
