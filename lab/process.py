"""What the lab starts, and how it ends a process: asks, waits, and kills what does not listen.

A child that has not been waited for keeps its pid, and is signalled by that. For any other process (its number was in a
file, or told by somebody) the pid may go to another at any moment: it is pinned first, looked at then, and signalled by
what pins it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

STOP_TIMEOUT = 90.0
"""Seconds from SIGTERM to SIGKILL; a manager gives its user endpoints thirty of them."""


R = TypeVar("R", bound="Running")


class Running(ABC):
    """Something that runs for a while: as a context manager it is started, and stopped in the end."""

    @abstractmethod
    def start(self) -> None:
        """Starts it, and waits until it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it; harmless when it does not run."""

    def __enter__(self: R) -> R:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class PinnedProcess:
    """The process that had `pid` when this was made, and none that gets the pid later. Close it, or use `with`."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when nobody has the pid."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Whether it has ended, waited for or not."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def send_signal(self, number: int) -> None:
        """Signals it; harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Lets it go. It runs on."""
        os.close(self._pidfd)

    def __enter__(self) -> PinnedProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def kill_if(pid: int, is_meant: Callable[[int], bool]) -> None:
    """Kills the process with this pid if it is meant, as `is_meant` sees by its pid; harmless when there is none."""
    with contextlib.suppress(ProcessLookupError), PinnedProcess(pid) as process:
        if is_meant(pid):
            process.send_signal(signal.SIGKILL)


def signal_ours(pid: int, number: int) -> None:
    """Signals a process of this run whose pid was read somewhere: one that is younger, and on the same network.

    Raises:
        ProcessLookupError: nobody has the pid, or somebody else.
    """
    with PinnedProcess(pid) as process:
        if not _is_ours(pid):
            raise ProcessLookupError(f"{pid} is no process of this run")
        process.send_signal(number)


def _is_ours(pid: int) -> bool:
    """Sees that by the network namespace, which a run of root's has for itself, and by the start times."""
    own, theirs = Path("/proc/thread-self"), Path(f"/proc/{pid}")
    try:
        same_network = os.path.samestat((own / "ns" / "net").stat(), (theirs / "ns" / "net").stat())
        return same_network and _started(theirs) >= _started(Path("/proc/self"))
    except OSError:  # gone, or another user's
        return False


def _started(process: Path) -> int:
    """Clock ticks since the boot."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[19])


def end(process: subprocess.Popen[Any] | None, what: str, failed: Callable[[str], Exception]) -> None:
    """Ends `process` by SIGTERM; harmless when there is none. `failed` makes the exception from a text.

    Raises:
        what `failed` makes: it had to be killed, or did not end with 0.
    """
    if process is None:
        return
    process.terminate()
    try:
        code = process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise failed(f"{what} did not end within {STOP_TIMEOUT:g} s") from None
    if code != 0:
        raise failed(f"{what} ended with exit code {code}")
