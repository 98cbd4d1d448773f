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
from pathlib import Path

from mep.monitor.containment.containment import Containment
from mep.monitor.endpoints import record, run_folder
from mep.monitor.endpoints.table import STOP_TIMEOUT
from mep.processes.pidfd import has_ended, send_signal


def count(run_directory: Path) -> int:
    """How many user endpoints run, with a manager or without."""
    with contextlib.ExitStack() as stack:
        return len(_running(run_directory, stack)[0])


def end(run_directory: Path) -> int:
    """Ends all of them, as a manager would: SIGTERM, and SIGKILL after STOP_TIMEOUT to them and what they have started.
    How many there were.

    Only for who holds the lock (`runlock`). A folder of which nobody can tell whether its process runs is left alone.
    Raises ContainmentError when something that they have started may be left.
    """
    with contextlib.ExitStack() as stack:
        pidfds, known = _running(run_directory, stack)
        for pidfd in pidfds:
            send_signal(pidfd, signal.SIGTERM)
        _wait(pidfds)
        asyncio.run(_end_what_is_left(run_directory.name, known))
        _wait(pidfds)
    for folder in known:
        run_folder.remove(folder)
    return len(pidfds)


async def _end_what_is_left(profile: str, folders: list[Path]) -> None:
    containment = Containment(profile)
    try:
        for folder in folders:
            await containment.kill(*record.whose(folder))
    finally:
        containment.close()


def _running(run_directory: Path, stack: contextlib.ExitStack) -> tuple[list[int], list[Path]]:
    """A pidfd for each that runs, closed with the stack; and all folders of which it is known."""
    pidfds, known = [], []
    for folder in record.folders(run_directory):
        with contextlib.suppress(record.RecordError):
            pidfd = record.open_process(folder)
            known.append(folder)
            if pidfd is not None:
                stack.callback(os.close, pidfd)
                pidfds.append(pidfd)
    return pidfds, known


def _wait(pidfds: list[int]) -> bool:
    """True once all have ended, False after STOP_TIMEOUT."""
    deadline = time.monotonic() + STOP_TIMEOUT
    return all(has_ended(pidfd, max(0.0, deadline - time.monotonic())) for pidfd in pidfds)
