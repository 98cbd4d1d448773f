"""One manager per endpoint and host: a lock file under /run/mep/NAME that holds the manager's pid.

The kernel drops the lock with the process, however it ends, so a stale file means nothing. The file stays when the
manager ends: were it removed, one could hold the lock of the file that is gone while another locks a new one. It has
the pid, and the time at which that process was started: before a new holder has written its own, there may be the pid
of an earlier one, which meanwhile may be anybody's.
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
from mep.processes.process import Invisible, Process

STOP_TIMEOUT = 150.0
"""Seconds that `stop` waits for the manager: as long as the unit allows (TimeoutStopSec). It takes one or two."""

_ATTEMPTS, _PAUSE = 50, 0.02
"""How often, and after how many seconds, the lock is tried again, or the file read."""
_LENGTH = 64
"""Bytes of the file."""

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
        descriptor = _locked(_path(run_directory))
    except OSError as e:
        raise NoPlace(f"{_path(run_directory)}: cannot be written: {e.strerror}") from None
    if descriptor is None:
        raise AlreadyRunning(holder(run_directory) or 0)
    _held.append(descriptor)
    try:
        moved()
        yield
    finally:
        _held.remove(descriptor)
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """The descriptor that holds the lock. Tries a few times: `holder` takes it for a moment, too. Raises OSError."""
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # versions before 0.2 have removed the file
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            time.sleep(_PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def take_over(descriptor: int) -> None:
    """Holds the lock for as long as this process lives: whoever executed us held it by that descriptor."""
    os.set_inheritable(descriptor, False)
    _held.append(descriptor)


def moved() -> None:
    """Writes our pid into the lock files: at first, and after the daemon has forked away. Raises OSError."""
    process = Process.of(os.getpid(), os.getuid())
    for descriptor in _held:
        text = f"{process.pid}\n{process.start_time}\n".encode()
        os.pwrite(descriptor, text.ljust(_LENGTH), 0)  # one write, always as long: nobody reads a half


def descriptors() -> list[int]:
    """Descriptors that must stay open for the lock to be held."""
    return list(_held)


def holder(run_directory: Path) -> int | None:
    """The pid of the manager that runs, or None; 0 when it does not say.

    Raises NoPlace, and PermissionError when only root may know.
    """
    pid: int | None = 0
    for _ in range(_ATTEMPTS):
        try:
            with _path(run_directory).open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    pid = _pid(file.read(_LENGTH))
                else:
                    return None
        except FileNotFoundError:
            return None
        except (IsADirectoryError, NotADirectoryError) as e:
            raise NoPlace(f"{_path(run_directory)}: cannot be read: {e.strerror}") from None
        if pid:
            return pid
        time.sleep(_PAUSE)  # it has the lock, and says its pid next
    return 0


def _pid(text: bytes) -> int:
    """The process that the file names; 0 while it names nobody, or one that has ended."""
    words = text.split()
    if not words or not all(word.isdigit() for word in words):
        return 0
    pid = int(words[0])
    try:
        return pid if len(words) == 1 or Process.of(pid, 0).start_time == int(words[1]) else 0
    except Invisible:
        return pid if Path(f"/proc/{pid}").exists() else 0


def stop(run_directory: Path, number: signal.Signals = signal.SIGTERM) -> bool:
    """Sends a signal that stops it to the manager, and waits until it is gone; False when none runs.

    Raises:
        PermissionError: only root may.
        TimeoutError: it did not stop within STOP_TIMEOUT.
    """
    pidfd = None
    while pidfd is None:
        pid = holder(run_directory)
        if pid is None:
            return False
        if pid == 0:
            raise TimeoutError(f"{_path(run_directory)} is locked by a process that does not say its pid")
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
        if pidfd is not None and holder(run_directory) != pid:  # it ended meanwhile; the pid may be anybody's
            os.close(pidfd)
            pidfd = None
    try:
        signal.pidfd_send_signal(pidfd, number)
        if not has_ended(pidfd, STOP_TIMEOUT):
            raise TimeoutError(f"process {pid} did not stop within {STOP_TIMEOUT:g} s")
    finally:
        os.close(pidfd)
    return True


def _path(run_directory: Path) -> Path:
    return run_directory / "manager.pid"
