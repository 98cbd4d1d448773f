"""Kills a process and all that belongs to it, where no scope of systemd holds them together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import TypeVar

from mep.processes.pidfd import send_signal
from mep.processes.process import Invisible, Process, Stat, audit_session_of, real_uid

T = TypeVar("T")

_ROUNDS = 20
"""Readings of /proc at the most: what forks all the time is never found whole."""
_SLICE = 32
"""Processes that are looked at before others have their turn: that takes a millisecond or two."""


async def kill_tree(process: Process, audit_session: int | None = None) -> int:
    """SIGKILL to a process and all that belongs to it; how many that were. Harmless when there is none.

    What belongs to it: its session and its process group, also when it has ended itself; its descendants; their
    sessions and groups; and what is in `audit_session`, which is the process's own. Not found without that is what was
    started by one that has ended, in a session of its own (a daemon); and with it what forks and ends faster than
    /proc can be read. Only what has the real uid `process.uid` ever gets a signal: not a child that is still root, nor
    another account. Others have their turn all the time.
    """
    family, stopped = set[int](), set[Process]()
    if not _has_gone_to_another(process):
        family.add(process.pid)
    for _ in range(_ROUNDS if family or audit_session is not None else 0):
        # Stopped first: what is killed makes room for new ones below RLIMIT_NPROC, what is stopped does not.
        new = await _members(family, process.uid, audit_session) - stopped
        if not new:
            break
        async for member in _in_slices(new):
            _signal(member, signal.SIGSTOP)
        stopped |= new
    async for member in _in_slices(stopped):
        _signal(member, signal.SIGKILL)
    return len(stopped)


async def in_audit_session(uid: int, audit_session: int) -> set[int]:
    """The processes of an account in a session of the kernel's audit."""
    found = set()
    async for pid in _in_slices(_pids()):
        if audit_session_of(pid) == audit_session and _is_of(uid, pid) and not _has_ended(pid):
            found.add(pid)
    return found


def _has_gone_to_another(process: Process) -> bool:
    """Whether the pid is another process's; it is not as long as it names a session or group with anybody in it."""
    try:
        return Process.of(process.pid, process.uid).start_time != process.start_time
    except Invisible:
        return False


async def _in_slices(items: Collection[T]) -> AsyncIterator[T]:
    """Each of them; others have their turn after every _SLICE, and at the end."""
    for count, item in enumerate(items, 1):
        yield item
        if count % _SLICE == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)


async def _members(family: set[int], uid: int, audit_session: int | None) -> set[Process]:
    """All processes of an account whose pid, parent, session or group is in `family`, which grows by their pids.

    Those in the audit session belong to it, too.
    """
    start_times: dict[int, int] = {}
    numbers = list(family)
    related: dict[int, list[int]] = defaultdict(list)
    """The processes that have this number as pid, parent, session or group."""
    async for pid in _in_slices(_pids()):
        with contextlib.suppress(OSError):  # it has just ended
            stat = Stat.of(pid)
            if not stat.is_zombie:
                start_times[pid] = stat.start_time
                for number in {pid, stat.parent, stat.group, stat.session}:
                    related[number].append(pid)
                if audit_session is not None and audit_session_of(pid) == audit_session:
                    numbers.append(pid)
    found: set[Process] = set()
    while numbers:
        async for pid in _in_slices(related.pop(numbers.pop(), [])):
            if pid in start_times and _is_of(uid, pid):
                found.add(Process(pid, start_times.pop(pid), uid))
                numbers.append(pid)
    family |= {process.pid for process in found}
    return found


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _has_ended(pid: int) -> bool:
    try:
        return Stat.of(pid).is_zombie
    except OSError:
        return True


def _is_of(uid: int, pid: int) -> bool:
    try:
        return real_uid(pid) == uid
    except OSError:
        return False  # it has just ended


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # Looked at only now that the descriptor is there: had the pid gone to another process, it would show.
        if Stat.of(process.pid).start_time == process.start_time and _is_of(process.uid, process.pid):
            send_signal(pidfd, number)
    except OSError:
        pass  # it has just ended
    finally:
        os.close(pidfd)
