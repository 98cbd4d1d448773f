"""Lets one endpoint at a time use a directory: the one that has the lock on the file `lock` in it.

Two guards keep a successor and a predecessor apart that has not ended yet:

    at the broker   the task queue has one consumer: no task goes to both. It says nothing about files, and the broker
                    forgets a consumer that has stopped or been cut off after about a minute
    here            journal and results have one owner. A predecessor that winds down, or stands still, keeps them until
                    its process has ended, however that ends: the kernel releases the lock

`preparation` calls `lock_directory` after the check-in and before anything touches a file. Until then tasks stay with
the broker.

The lock is one of `file_lock`; where a file system has none, the endpoint goes on with a warning.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Executor
from pathlib import Path

from uep.storage import file_lock

log = logging.getLogger(__name__)

PATIENCE = 90.0
"""Seconds for a predecessor to end. It needs 65 s at most when nothing is wrong with it (`endpoint`)."""
PAUSE = 0.2
"""Seconds between attempts: a lock that is waited for in the kernel could not be given up."""


class DirectoryInUse(Exception):
    """Another endpoint has the directory, and did not end; the text is for the user."""


async def lock_directory(directory: Path, thread: Executor) -> None:
    """Takes the lock, for as long as this process lives. Files are touched in `thread`: the disk may be slow.

    Raises:
        DirectoryInUse: another endpoint has it for PATIENCE seconds.
        OSError: the directory cannot be used.
    """
    loop = asyncio.get_running_loop()
    fd = await loop.run_in_executor(thread, file_lock.open_file, directory / "lock")
    deadline = loop.time() + PATIENCE
    waiting = False
    while holder := await loop.run_in_executor(thread, file_lock.take, fd):
        if not waiting:
            waiting = True
            log.warning(
                "waiting for an earlier endpoint to end: %s has %s; tasks stay with the broker", holder, directory
            )
        if loop.time() > deadline:
            os.close(fd)
            raise DirectoryInUse(
                f"An earlier user endpoint ({holder}) still uses the endpoint's directory and does not end."
                " End that process, and submit again."
            )
        await asyncio.sleep(PAUSE)
    if waiting:
        log.info("the earlier endpoint has ended")
