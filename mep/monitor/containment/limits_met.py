"""Which limits a user endpoint has met, as the kernel counts in its cgroup and those above (cgroups(7)).

    watched = limits_met.watch(pid, scope)     # while it runs
    watched.met()                              # at its end, while its scope is still there

Version 2 counts in `memory.events` and `pids.events`, version 1 in `memory.oom_control`, `memory.failcnt` and
`pids.events`. What the scope counts is this user endpoint's alone; what the cgroups above count is everybody's in them,
so of that only what has come since `watch` matters.

A scope goes with its last process, and systemd may be quicker than who reads. Then there is only a guess, by what the
account's slice and the host (`/proc/vmstat`) have counted; it is marked as one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mep.monitor.containment import cgroups
from mep.monitor.containment.limits import size
from mep.monitor.containment.systemd import ContainmentError

_LONGEST = 4096
"""Bytes of a cgroup's file that are read; those here have a few lines."""
_EVENTS = {
    "memory": ("memory.events", "memory.events.local", "memory.oom_control", "memory.failcnt"),
    "pids": ("pids.events", "pids.events.local"),
}
_LIMITS = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}
_KILLED = ("memory.events oom_kill", "memory.events oom_group_kill", "memory.oom_control oom_kill")
_MET = {
    "memory": ("memory.events.local oom", "memory.events oom", "memory.failcnt"),
    "pids": ("pids.events.local max", "pids.events max"),
}
"""How often its own limit was met: the first that is there. Other files count for the cgroups below as well."""
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True)
class LimitMet:
    """A limit that was met: words for its user and the admin, and for the admin only. guess: it may have been."""

    reason: str
    detail: str
    guess: bool = False


@dataclass(frozen=True)
class _Group:
    """A cgroup, and what it had counted at first."""

    folder: Path
    controller: str
    first: dict[str, int]

    def has_more(self, *names: str) -> bool:
        counts = _counts(self.folder, self.controller)
        return any(counts.get(name, 0) > self.first.get(name, 0) for name in names)

    def was_met(self) -> bool:
        counts = _counts(self.folder, self.controller)
        name = next((name for name in _MET[self.controller] if name in counts), "")
        return counts.get(name, 0) > self.first.get(name, 0)

    def limit(self) -> int | None:
        """None for no limit, and for a cgroup that is gone."""
        words = [_words(self.folder / name) for name in _LIMITS[self.controller]]
        numbers = [int(word) for line in words for word in line if word.isdigit()]
        return next((number for number in numbers if number < cgroups.UNLIMITED), None)


@dataclass(frozen=True)
class Watched:
    """The cgroups of a user endpoint, from its own upwards, for each controller. scope, account: its own, its slice."""

    scope: str = ""
    account: str = ""
    memory: tuple[_Group, ...] = ()
    tasks: tuple[_Group, ...] = ()
    host_kills: int = 0

    def own_folder(self) -> str | None:
        """The cgroup that is this user endpoint's alone, by its memory; None without one."""
        own = next((group.folder for group in self.memory if group.folder.name == self.scope), None)
        return None if own is None else str(own)

    def met(self) -> list[LimitMet]:
        """Says which limits have been met. Never raises: what cannot be read has not been."""
        return [*self._memory(), *self._tasks()]

    def _memory(self) -> Iterator[LimitMet]:
        own = next((group for group in self.memory if group.folder.name == self.scope), None)
        counts = {} if own is None else _counts(own.folder, own.controller)  # once: it may go at any moment
        if counts:
            if any(counts.get(name, 0) for name in _KILLED):
                yield self._for_want_of_memory("out of memory: the kernel killed a process of it")
        elif self.scope and _host_kills() > self.host_kills:
            account = [group for group in self.memory if group.folder.name == self.account]
            likely = any(group.has_more(*_KILLED) or group.was_met() for group in account)
            text = "the kernel has killed a process on this system for that meanwhile"
            met = self._for_want_of_memory(f"{'probably' if likely else 'perhaps'} out of memory: {text}")
            yield dataclasses.replace(met, guess=True)

    def _for_want_of_memory(self, text: str) -> LimitMet:
        at = next((g for g in self.memory if g.was_met() and g.limit() is not None), None)
        if at is None:
            return LimitMet(text, "no limit of memory is known to be met; the host itself may have run out")
        return self._at(at, text, "memory_max", size)

    def _tasks(self) -> Iterator[LimitMet]:
        first = next((group for group in self.tasks if group.was_met()), None)
        if first is None:
            return
        # Before Linux 6.11 a start that fails is counted where it was tried, not where the limit is.
        above = self.tasks[self.tasks.index(first) :]
        limits = [(limit, group) for group in above if (limit := group.limit()) is not None]
        if limits:
            at = first if first.limit() is not None else min(limits, key=lambda pair: pair[0])[1]
            text = "no more processes or threads could be started"
            yield self._at(at, text, "tasks_max", lambda limit: f"{limit} processes and threads")

    def _at(self, group: _Group, text: str, key: str, amount: Callable[[int], str]) -> LimitMet:
        limit = group.limit() or 0
        if group.folder.name == self.account:
            whose = f"all that you run through this endpoint on this system (resources.{key}); run less at a time"
        else:
            whose = "a part of this system that your user endpoint is in"
        return LimitMet(f"{text}: the limit is {amount(limit)} for {whose}", f"limit of {group.folder.name}: {limit}")


def watch(pid: int, scope: str | None) -> Watched:
    """Notes what has been counted so far. Without a scope nothing is watched: whose it is could not be told.

    Never raises: without cgroups a user endpoint runs as well.
    """
    if scope is None:
        return Watched()
    try:
        member_of, mounts = cgroups.cgroups_of(pid), cgroups.mounts()
    except (ContainmentError, OSError, ValueError):
        return Watched()
    own = PurePosixPath(member_of.get("name=systemd", member_of.get("", "")))
    if own.name != scope:
        return Watched()
    found = {}
    for controller in _EVENTS:
        key = controller if controller in member_of and controller in mounts else ""
        path, mount = member_of.get(key, ""), mounts.get(key)
        lowest = next((f for unit in (scope, own.parent.name) if (f := cgroups.folder(unit, path, mount))), None)
        folders = [] if lowest is None or mount is None else [lowest, *lowest.parents]
        found[controller] = tuple(
            _Group(folder, controller, {} if folder.name == scope else _counts(folder, controller))
            for folder in folders
            if mount is not None and folder.is_relative_to(mount[1])
        )
    return Watched(scope, own.parent.name, found["memory"], found["pids"], _host_kills())


def _host_kills() -> int:
    """How many processes of this host the kernel has killed for want of memory, by a limit or without."""
    with contextlib.suppress(OSError, ValueError):
        words = _VMSTAT.read_bytes().split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=False)).get(b"oom_kill", 0)
    return 0


def _counts(folder: Path, controller: str) -> dict[str, int]:
    """What a cgroup has counted, by file and key; nothing when it is gone."""
    found = {}
    for name in _EVENTS[controller]:
        words = _words(folder / name)
        keys = [name] if len(words) == 1 else [f"{name} {key}" for key in words[::2]]
        values = words if len(words) == 1 else words[1::2]
        found.update({key: int(value) for key, value in zip(keys, values, strict=False) if value.isdigit()})
    return found


def _words(path: Path) -> list[str]:
    """The words of a small file; none when it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(_LONGEST) or b"").decode("ascii", errors="replace").split()
    except OSError:
        return []
