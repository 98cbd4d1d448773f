"""Kills a process and all that belongs to it, where no scope of systemd holds them together."""

from __future__ import annotations

import asyncio
import os
import signal

import psutil

from mep.processes.process import Invisible, Process

_ROUNDS = 20
"""Readings of /proc at the most: what forks all the time is never found whole."""


async def kill_tree(process: Process) -> int:
    """SIGKILL to a process and all that belongs to it; how many that were. Harmless when there is none.

    What belongs to it: its session and its process group, also when it has ended itself; its descendants; and their
    sessions and groups. Not found is what was started by one that has ended, in a session of its own (a daemon), and
    what forks and ends faster than /proc can be read. Only what has the real uid `process.uid` ever gets a signal: not
    a child that is still root, nor another account. Others have their turn after each reading of /proc.
    """
    if _has_gone_to_another(process):
        return 0
    family, stopped = {process.pid}, set[psutil.Process]()
    for _ in range(_ROUNDS):
        # Stopped first: what is killed makes room for new ones below RLIMIT_NPROC, what is stopped does not.
        new = _members(family, process.uid) - stopped
        if not new:
            break
        for member in new:
            _signal(member, process.uid, signal.SIGSTOP)
        stopped |= new
        await asyncio.sleep(0)
    for member in stopped:
        _signal(member, process.uid, signal.SIGKILL)
    return len(stopped)


def _has_gone_to_another(process: Process) -> bool:
    """Whether the pid is another process's; it is not as long as it names a session or group with anybody in it."""
    try:
        return Process.of(process.pid, process.uid).start_time != process.start_time
    except Invisible:
        return False


def _members(family: set[int], uid: int) -> set[psutil.Process]:
    """All processes of an account whose pid, parent, session or group is in `family`, which grows by their pids."""
    ids: dict[psutil.Process, set[int]] = {}
    for pid in psutil.pids():
        try:
            process = psutil.Process(pid)
            if process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE:
                ids[process] = {pid, process.ppid(), os.getsid(pid), os.getpgid(pid)}
        except (psutil.Error, OSError):
            continue  # it has just ended
    found: set[psutil.Process] = set()
    while more := {process for process in ids if ids[process] & family} - found:
        found |= more
        family |= {process.pid for process in more}
    return found


def _signal(process: psutil.Process, uid: int, number: signal.Signals) -> None:
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        # Looked at only now that the descriptor is there: had the pid gone to another process, it would show.
        if process.is_running() and process.uids().real == uid:
            signal.pidfd_send_signal(pidfd, number)
    except (psutil.Error, OSError):
        pass  # it has just ended
    finally:
        os.close(pidfd)
