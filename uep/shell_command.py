"""Runs shell commands of the configuration, with a limit of time; what fails leaves no process behind.

`preparation` and `endpoint` call `run` for `endpoint_setup` and `endpoint_teardown`; `uep.environments` calls
`run_program`, without a shell. The output goes to the log, and its end into the error. A command that succeeds may
leave something in the background: that goes on writing to the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Sequence

from uep.config import ConfigError
from wire.time_limit import within

log = logging.getLogger(__name__)

TAIL = 1000
"""Characters of a command's output that its error has."""
OUTPUT_TIME = 2.0
"""Seconds for the last output of a command that has been ended."""
_READ_SIZE = 1 << 16


async def run(what: str, command: str, seconds: float) -> None:
    """Runs the text `command`, which the configuration calls `what`, by a shell, as `run_program` does."""
    await run_program(what, ["/bin/sh", "-c", command], seconds)


async def run_program(what: str, arguments: Sequence[str], seconds: float) -> None:
    """Runs the program `arguments[0]`, an absolute path, in a process group of its own. Errors call it `what`.

    Raises:
        ConfigError: it failed, or was killed after `seconds`; with the end of its output.
    """
    log.info("running %s", what)
    output = _Output()
    try:
        pid = os.posix_spawn(
            arguments[0],
            list(arguments),
            os.environ,
            file_actions=output.file_actions(),
            setpgroup=0,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them, a shell should not
        )
    finally:
        output.begin()
    try:
        code = await within(seconds, _ended(pid))
    except asyncio.TimeoutError:
        raise ConfigError(f"{what} was ended after {seconds:g} s: not done{await output.end()}") from None
    if code:
        raise ConfigError(f"{what} failed with {_said(code)}{await output.end()}")


async def _ended(pid: int) -> int:
    """Waits for a child and returns its exit code. What failed, or is not waited for any more, is killed as a whole."""
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, exited.set)
    try:
        await exited.wait()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # its pid stays its own until it is reaped
        if ended is None or ended.si_status:
            _kill(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except asyncio.CancelledError:
        _kill(pid)
        os.waitpid(pid, os.WNOHANG)  # it may hang in a file system: nobody waits for that
        raise
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _kill(pid: int) -> None:
    """Kills a shell, its process group, and what it has started in groups of its own."""
    import psutil

    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _said(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"


class _Output:
    """A command's output: copied to the log by a thread, whose end nobody waits for; the last of it is kept."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._tail = b""
        self._thread = threading.Thread(target=self._copy, name="command output", daemon=True)

    def file_actions(self) -> list[tuple[int, int, int] | tuple[int, int, str, int, int]]:
        """Tells `posix_spawn` what becomes descriptors 0 to 2."""
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        return [null, *((os.POSIX_SPAWN_DUP2, self._writing, number) for number in (1, 2))]

    def begin(self) -> None:
        """Copies from now on: whoever writes has the pipe."""
        os.close(self._writing)
        self._thread.start()

    async def end(self) -> str:
        """Waits for the last output, a little, and returns its end, to be put behind an error."""
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join, OUTPUT_TIME)
        text = self._tail.decode(errors="replace").strip()
        text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)[-TAIL:]
        return f"; the end of its output:\n{text}" if text else "; it printed nothing"

    def _copy(self) -> None:
        while chunk := os.read(self._reading, _READ_SIZE):
            self._tail = (self._tail + chunk)[-4 * TAIL :]
            with contextlib.suppress(OSError):  # a full disk: the command goes on
                os.write(1, chunk)
        os.close(self._reading)
