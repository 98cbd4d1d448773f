"""Local accounts of one's own: made with useradd, gone afterwards with all that they run and own.

    with LocalAccount("mepdemo_alice") as account:
        ...  account.uid, account.home

Needs root. An account that was not made here is never touched: those made here carry a comment, and one with that
comment that is left over from a run that was killed is removed first.
"""

from __future__ import annotations

import contextlib
import fcntl
import pwd
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO

from lab.process import kill_if
from lab.waiting import until

COMMENT = "made by the mep lab"
"""The comment (GECOS) field of every account made here."""
END_TIMEOUT = 10.0
"""Seconds for the account's processes to end after SIGKILL."""
_LOCKS = Path("/run/lock")


class AccountFailed(Exception):
    """The account cannot be made or removed; the text has the words of the system's tool."""


class LocalAccount:
    """An account with a home folder and a login shell."""

    def __init__(self, name: str, *, shell: str = "/bin/bash", arguments: tuple[str, ...] = ()) -> None:
        """`arguments` are added to those of useradd."""
        self.name = name
        self._create = ["useradd", "--create-home", "--comment", COMMENT, "--shell", shell, *arguments, name]
        self._entry: pwd.struct_passwd | None = None
        self._lock: IO[str] | None = None

    @property
    def uid(self) -> int:
        assert self._entry is not None, "the account does not exist yet"
        return self._entry.pw_uid

    @property
    def gid(self) -> int:
        assert self._entry is not None, "the account does not exist yet"
        return self._entry.pw_gid

    @property
    def home(self) -> Path:
        assert self._entry is not None, "the account does not exist yet"
        return Path(self._entry.pw_dir)

    def __enter__(self) -> LocalAccount:
        lock = (_LOCKS / f"mep-lab-{self.name}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AccountFailed(f"account {self.name} is in use by another run on this machine") from None
        self._lock = lock
        try:
            self._make()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._remove()
        finally:
            self._unlock()

    def change(self, *argv: str) -> None:
        """Runs one of the system's tools for accounts, such as chage, on this one. Raises AccountFailed."""
        _run([*argv, self.name])

    def processes(self) -> list[int]:
        """The pids of everything that runs as this account."""
        return [pid for folder in Path("/proc").glob("[0-9]*") if self._runs(pid := int(folder.name))]

    def end_processes(self) -> None:
        """Kills them until none is left: one may start others meanwhile. Raises AccountFailed."""

        def none_left() -> bool:
            left = self.processes()
            for pid in left:
                kill_if(pid, self._runs)
            return not left

        until(none_left, f"the processes of {self.name} to end", END_TIMEOUT, failed=AccountFailed)

    def _make(self) -> None:
        with contextlib.suppress(KeyError):
            self._entry = pwd.getpwnam(self.name)
            if self._entry.pw_gecos != COMMENT:
                raise AccountFailed(f"account {self.name} exists already, and was not made here; nothing was changed")
            self._remove()
        _run(self._create)
        self._entry = pwd.getpwnam(self.name)

    def _unlock(self) -> None:
        assert self._lock is not None
        self._lock.close()  # the file stays: who has opened it already would lock one that others do not find

    def _remove(self) -> None:
        self.end_processes()
        _run(["userdel", self.name])
        shutil.rmtree(self.home, ignore_errors=True)
        (Path("/var/mail") / self.name).unlink(missing_ok=True)

    def _runs(self, pid: int) -> bool:
        """Whether the process is this account's, and lives: one that nobody has waited for yet does not."""
        folder = Path(f"/proc/{pid}")
        try:
            return folder.stat().st_uid == self.uid and "State:\tZ" not in (folder / "status").read_text()
        except OSError:  # gone
            return False


def _run(argv: list[str]) -> None:
    """One at a time on this machine: the tools themselves wait for each other in steps of a second."""
    with (_LOCKS / "mep-lab-tools").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AccountFailed(f"{' '.join(argv)}: {done.stderr.strip()}")
