"""Which limits a user endpoint has met, as the kernel counts in its cgroup and those above (cgroups(7)).

    watched = limits_met.watch(pid, scope)     # while it runs
    watched.met()                              # at its end, while its scope is still there

Version 2 counts in `memory.events` and `pids.events`, version 1 in `memory.oom_control`, `memory.failcnt` and
`pids.events`. What the scope counts is this user endpoint's alone; what the cgroups above count is everybody's in them,
so of that only what has come since `watch` matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mep.monitor.containment import cgroups
from mep.monitor.containment.limits import size
from mep.monitor.containment.systemd import ContainmentError

_LONGEST = 4096
"""Bytes of a cgroup's file that are read; those here have a few lines."""
_EVENTS = {
    "memory": ("memory.events", "memory.oom_control", "memory.failcnt"),
    "pids": ("pids.events",),
}
_LIMITS = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}
_KILLED = ("memory.events oom_kill", "memory.events oom_group_kill", "memory.oom_control oom_kill")
_MEMORY_MET = ("memory.events oom", "memory.failcnt")
_TASKS_MET = ("pids.events max",)


@dataclass(frozen=True)
class LimitMet:
    """A limit that was met: in words for the user and the admin, and what only the admin gets."""

    reason: str
    detail: str


@dataclass(frozen=True)
class _Group:
    """A cgroup, and what it had counted at first."""

    folder: Path
    controller: str
    first: dict[str, int]

    def has_more(self, *names: str) -> bool:
        counts = _counts(self.folder, self.controller)
        return any(counts.get(name, 0) > self.first.get(name, 0) for name in names)

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

    def met(self) -> list[LimitMet]:
        """Says which limits have been met. Never raises: what cannot be read has not been."""
        return [*self._memory(), *self._tasks()]

    def _memory(self) -> Iterator[LimitMet]:
        theirs = [group for group in self.memory if group.folder.name in (self.scope, self.account)]
        killed = next((group for group in theirs if group.folder.is_dir()), None)  # its own, unless that is gone
        if killed is None or not killed.has_more(*_KILLED):
            return
        whose = "a process of it" if killed.folder.name == self.scope else "a process of your user endpoints here"
        text = f"out of memory: the kernel killed {whose}"
        at = next((g for g in self.memory if g.has_more(*_MEMORY_MET) and g.limit() is not None), None)
        if at is None:
            yield LimitMet(text, "no limit of memory is known to be met; the host itself may have run out")
        else:
            yield self._at(at, text, "memory_max", lambda limit: size(limit))

    def _tasks(self) -> Iterator[LimitMet]:
        first = next((group for group in self.tasks if group.has_more(*_TASKS_MET)), None)
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
    return Watched(scope, own.parent.name, found["memory"], found["pids"])


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
