"""Hosts that share a home: which of them runs an endpoint, and what earlier boots have left.

Without root the state of each host and boot has a folder in the configuration folder (`paths.own_runs`), with the lock
of its manager. Locks on a shared file system hold for all hosts; of one that crashes the file server drops them after a
while. Called by `main` before it registers anything, and by commands; the file system may keep them waiting.
"""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from mep.monitor import run_lock
from mep.profile.paths import Paths


def running_on(paths: Paths, name: str) -> str:
    """Where the manager of profile `name` runs that is not this host's, and what to do, as the end of a sentence;
    nothing when it does not."""
    if paths.run.parent != paths.own_runs or not paths.own_runs.is_dir():
        return ""
    for other in paths.own_runs.iterdir():
        if other != paths.run and _is_held(other / name):
            host, _, _ = other.name.rpartition("-")
            crashed = f"if that host has crashed, try again in two minutes, or remove {other}"
            return f"runs on host {host}: stop it there; {crashed}"
    return ""


def _is_held(run_directory: Path) -> bool:
    try:
        return run_lock.holder(run_directory) is not None
    except (run_lock.NoPlace, OSError):  # nobody's manager made that
        return False


def forget_other_boots(paths: Paths) -> None:
    """Removes what earlier boots of this host have left: the state of an ordinary user's endpoints is on disk.

    Only where we have named the folder. What a manager holds is of another host, which has our name and our home.
    """
    if paths.run.parent != paths.own_runs:
        return
    host, _, _ = paths.run.name.rpartition("-")
    for left in paths.own_runs.glob(f"{glob.escape(host)}-????????"):
        held = any(run_lock.holder(each) is not None for each in left.iterdir() if each.is_dir())
        if left != paths.run and not held:
            shutil.rmtree(left, ignore_errors=True)
