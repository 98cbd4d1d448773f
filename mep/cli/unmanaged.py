"""User endpoints from outside of their manager: how many run, and the end of those that have no manager any more.

For `mep list` and `mep stop`. A manager that was killed leaves its user endpoints running; usually the next one adopts
them, but a site may want to stop for good instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.endpoints import kept, record, run_folder
from mep.monitor.endpoints.table import STOP_TIMEOUT
from mep.processes.pidfd import has_ended, send_signal


def count(run_directory: Path) -> int:
    """How many user endpoints run, with a manager or without."""
    with contextlib.ExitStack() as stack:
        return len(_running(run_directory, stack)[0])


def end(run_directory: Path, kept_directory: Path) -> int:
    """Ends all of them, as a manager would: SIGTERM, and SIGKILL after STOP_TIMEOUT to them and what they have started.
    How many there were.

    Only for who holds the lock (`run_lock`). A folder of which nobody can tell whether its process runs is left alone.
    Those that end in time have answered their tasks: a next manager has nothing to recover.

    Raises:
        ContainmentError: something that they have started may be left. All others have ended; the folders of these
            stay, so that it can be tried again.
    """
    with contextlib.ExitStack() as stack:
        running, known = _running(run_directory, stack)
        for pidfd in running.values():
            send_signal(pidfd, signal.SIGTERM)
        _wait(running.values())
        in_time = {folder.name: None for folder in running.keys() - _running(run_directory, stack)[0].keys()}
        failed = asyncio.run(_end_what_is_left(run_directory.name, known))
        _wait(running.values())
    for folder in known:
        if folder not in failed:
            run_folder.remove(folder)
    if in_time:
        kept.apply(kept_directory, in_time)
    if failed:
        raise ContainmentError("; ".join(dict.fromkeys(failed.values())))
    return len(running)


async def _end_what_is_left(profile: str, folders: list[Path]) -> dict[Path, str]:
    """The folders of those of whom something may be left, and why."""
    failed = {}
    containment = Containment(profile)
    try:
        for folder in folders:
            try:
                await containment.kill(*record.whose(folder))
            except (ContainmentError, record.RecordError) as e:
                failed[folder] = str(e)
    finally:
        containment.close()
    return failed


def _running(run_directory: Path, stack: contextlib.ExitStack) -> tuple[dict[Path, int], list[Path]]:
    """A pidfd for each that runs, closed with the stack; and all folders of which it is known."""
    running: dict[Path, int] = {}
    known = []
    for folder in record.folders(run_directory):
        with contextlib.suppress(record.RecordError):
            pidfd = record.open_process(folder)
            known.append(folder)
            if pidfd is not None:
                stack.callback(os.close, pidfd)
                running[folder] = pidfd
    return running, known


def _wait(pidfds: Iterable[int]) -> bool:
    """True once all have ended, False after STOP_TIMEOUT."""
    deadline = time.monotonic() + STOP_TIMEOUT
    return all(has_ended(pidfd, max(0.0, deadline - time.monotonic())) for pidfd in pidfds)
