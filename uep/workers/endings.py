"""Says how a process that ran a task has ended: its exit code, the signal, a limit of memory.

The kernel counts, for each control group, the processes that it has killed for want of memory (`MemoryKills`): in
`memory.events` of version 2, in `memory.oom_control` of version 1.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

LARGEST = 1 << 60
"""Bytes from which on a limit of memory is none: version 1 has no word for that."""


def described(status: int) -> str:
    """Says what a wait status, as of `os.waitpid`, means."""
    if not os.WIFSIGNALED(status):
        return f"ended with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    dumped = ", core dumped" if os.WCOREDUMP(status) else ""
    return f"ended by {signal_name(number)}{dumped}"


def signal_name(number: int) -> str:
    """Names a signal by number and name."""
    known = number in signal.Signals.__members__.values()
    return f"signal {number} ({signal.Signals(number).name})" if known else f"signal {number}"


class MemoryKills:
    """The processes of our control group that the kernel has killed for want of memory, counted from now on."""

    def __init__(self, groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> None:
        self._folders = _folders(groups, mounted)
        self._before = self._count()

    def reason(self) -> str:
        """Says that there were some since the last time, and which limit they have met; else nothing."""
        before, self._before = self._before, self._count()
        if self._before <= before:
            return ""
        limit = min((limit for folder in self._folders if (limit := _limit(folder)) is not None), default=None)
        met = "" if limit is None else f"; the limit of memory for all that runs there is {limit / 2**20:.0f} MiB"
        return f", for want of memory{met}"

    def _count(self) -> int:
        for folder in self._folders[:1]:
            for name in ("memory.events", "memory.oom_control"):
                for line in _lines(folder / name):
                    key, _, value = line.partition(" ")
                    if key == "oom_kill" and value.isdigit():
                        return int(value)
        return 0


def _folders(groups: Path, mounted: Path) -> list[Path]:
    """Lists our control group for memory and those above it, which have limits too."""
    for line in _lines(groups):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root = mounted / "memory"
        elif controllers == "" and (mounted / "cgroup.controllers").exists():
            root = mounted
        else:
            continue
        own = root / path.lstrip("/")
        if not own.exists():  # a container sees its own group as the root
            own = root
        return [own, *(above for above in own.parents if above.is_relative_to(root))]
    return []


def _limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        for line in _lines(folder / name):
            if line.isdigit() and int(line) < LARGEST:
                return int(line)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).rstrip("\n").split("\n")  # names of cgroups may hold what ends a line
    except OSError:
        return []
