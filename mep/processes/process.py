"""One process, and no other: a pid together with the time at which it was started.

A pid alone names whoever has it at the moment. What was read from a file is therefore opened by `Process.open`, which
gives a descriptor of exactly that process or nothing; signals then go through the descriptor.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mep.processes.pidfd import has_ended

_NO_SESSION = 2**32 - 1
"""What the kernel says of a process that has no login uid: of its session, and of the login uid itself."""


class Invisible(OSError):
    """There is a process, and /proc does not show it to us. Nothing can be said about it."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"/proc does not show process {pid} (hidepid?); the manager needs CAP_SYS_PTRACE to see it")


@dataclass(frozen=True)
class Process:
    """start_time: clock ticks from boot to its start, as /proc says. uid: whom it runs as once it has been executed."""

    pid: int
    start_time: int
    uid: int

    @classmethod
    def of(cls, pid: int, uid: int) -> Process:
        """The process that has `pid` now; the caller knows that it has not been reaped. Raises Invisible."""
        try:
            return cls(pid, Stat.of(pid).start_time, uid)
        except OSError:
            raise Invisible(pid) from None

    def open(self, *, executed: bool = True) -> int | None:
        """A pidfd of this process; None when it has ended, or its pid has gone to another. Raises Invisible.

        executed: it is known to run its program, and so as its uid; before, it may still be root.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return None
        try:
            # Looked at only now: had the pid gone to another process before, that one would have begun later.
            if self._has_the_pid(executed):
                return pidfd
        except OSError:
            if not has_ended(pidfd):
                os.close(pidfd)
                raise Invisible(self.pid) from None
        os.close(pidfd)
        return None

    def _has_the_pid(self, executed: bool) -> bool:
        facts = Stat.of(self.pid)
        same = facts.start_time == self.start_time and not facts.is_zombie
        return same and real_uid(self.pid) in ((self.uid,) if executed else (self.uid, 0))


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says of a process."""

    is_zombie: bool
    parent: int
    group: int
    session: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Stat:
        """Reads it. Raises OSError: /proc does not show such a process."""
        fields = _stat(pid)
        parent, group, session = map(int, fields[1:4])
        return cls(fields[0] == b"Z", parent, group, session, int(fields[19]))


def _stat(pid: int) -> list[bytes]:
    """The fields from the third on (proc(5)); the second, the program's name, may hold whatever bytes it likes."""
    line = Path(f"/proc/{pid}/stat").read_bytes()
    return line[line.rindex(b")") + 2 :].split()


def audit_session_of(pid: int) -> int | None:
    """The session that the kernel's audit has a process in: given with its login uid, inherited, and never changed by
    who has no right to. None without one, without audit, and when there is no such process."""
    try:
        number = int(Path(f"/proc/{pid}/sessionid").read_bytes())
    except (OSError, ValueError):
        return None
    return None if number == _NO_SESSION else number


def login_uid_of(pid: int) -> int | None:
    """Who has logged in and started a process, whoever it has become since. None without a login, without audit, and
    when there is no such process."""
    try:
        number = int(Path(f"/proc/{pid}/loginuid").read_bytes())
    except (OSError, ValueError):
        return None
    return None if number == _NO_SESSION else number


def real_uid(pid: int) -> int:
    """The real uid; the owner of the folder in /proc is root when a process may not be dumped. Raises OSError."""
    lines = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")  # the name may hold what text takes for a line's end
    return next(int(line.split()[1]) for line in lines if line.startswith(b"Uid:"))
