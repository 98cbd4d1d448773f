"""One manager per endpoint and host: a lock file under /run/mep/NAME that holds the manager's pid.

The kernel drops the lock with the process, however it ends, so a stale file means nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from mep.processes.pidfd import has_ended

STOP_TIMEOUT = 150.0
"""Seconds that `stop` waits for the manager: as long as the unit allows (TimeoutStopSec). It takes one or two."""

_held: list[int] = []


class AlreadyRunning(Exception):
    """Another manager holds the lock. `pid` is its process."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


class NoPlace(Exception):
    """The lock file cannot be made; the text says where and why."""


@contextlib.contextmanager
def hold(run_directory: Path) -> Iterator[None]:
    """Holds the lock of `run_directory`, which is made if need be.

    Raises:
        AlreadyRunning: another process holds it.
        NoPlace: the folder or the file cannot be made.
    """
    try:
        run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(_path(run_directory), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise NoPlace(f"{_path(run_directory)}: cannot be written: {e.strerror}") from None
    if not _locked(descriptor):
        os.close(descriptor)
        raise AlreadyRunning(holder(run_directory) or 0)
    _held.append(descriptor)
    try:
        moved(run_directory)
        yield
    finally:
        _held.remove(descriptor)
        _path(run_directory).unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # something else is still in it
            run_directory.rmdir()


def _locked(descriptor: int) -> bool:
    """Takes the lock. Tries a few times: `holder` takes it for a moment, too."""
    for _ in range(10):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def moved(run_directory: Path) -> None:
    """Writes our pid into the lock file: at first, and after the daemon has forked away."""
    _path(run_directory).write_text(f"{os.getpid()}\n", encoding="ascii")


def descriptors() -> list[int]:
    """Descriptors that must stay open for the lock to be held."""
    return list(_held)


def holder(run_directory: Path) -> int | None:
    """The pid of the manager that runs, or None. Raises NoPlace, and PermissionError when only root may know."""
    try:
        with _path(run_directory).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, NotADirectoryError) as e:
        raise NoPlace(f"{_path(run_directory)}: cannot be read: {e.strerror}") from None
    return None


def stop(run_directory: Path) -> bool:
    """Sends SIGTERM to the manager and waits until it is gone; False when none runs.

    Raises:
        PermissionError: only root may.
        TimeoutError: it did not stop within STOP_TIMEOUT.
    """
    pid = holder(run_directory)
    if not pid:
        return False
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not has_ended(pidfd, STOP_TIMEOUT):
            raise TimeoutError(f"process {pid} did not stop within {STOP_TIMEOUT:g} s")
    finally:
        os.close(pidfd)
    return True


def _path(run_directory: Path) -> Path:
    return run_directory / "manager.pid"
