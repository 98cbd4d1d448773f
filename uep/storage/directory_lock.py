"""Lets one endpoint at a time use a directory: the one that has the lock on the file `lock` in it.

Two guards keep a successor and a predecessor apart that has not ended yet:

    at the broker   the task queue has one consumer: no task goes to both. It says nothing about files, and the broker
                    forgets a consumer that has stopped or been cut off after about a minute
    here            journal and results have one owner. A predecessor that winds down, or stands still, keeps them until
                    its process has ended, however that ends: the kernel releases the lock

`preparation` calls `lock_directory` after the check-in and before anything touches a file. Until then tasks stay with
the broker.

The lock is one of the process, not of the open file: what tasks leave running, or an engine has forked, does not hold
it. (A task in a thread of the endpoint that opens and closes this very file releases it; so are such locks.) Home
directories on NFS have them too; where a file system has none, the endpoint goes on with a warning.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
from concurrent.futures import Executor
from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE = 90.0
"""Seconds for a predecessor to end. It needs 65 s at most when nothing is wrong with it (`endpoint`)."""
PAUSE = 0.2
"""Seconds between attempts: a lock that is waited for in the kernel could not be given up."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class DirectoryInUse(Exception):
    """Another endpoint has the directory, and did not end; the text is for the user."""


async def lock_directory(directory: Path, thread: Executor) -> None:
    """Takes the lock, for as long as this process lives. Files are touched in `thread`: the disk may be slow.

    Raises:
        DirectoryInUse: another endpoint has it for PATIENCE seconds.
        OSError: the directory cannot be used.
    """
    loop = asyncio.get_running_loop()
    fd = await loop.run_in_executor(thread, _open, directory / "lock")
    deadline = loop.time() + PATIENCE
    waiting = False
    while holder := await loop.run_in_executor(thread, _lock, fd):
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


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock(fd: int) -> str:
    """Tries to lock the file. Returns who else has it; nothing when it is ours, or there are no locks here."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EACCES, errno.EAGAIN):
            said, _, _ = os.pread(fd, 200, 0).decode(errors="replace").partition("\n")
            return said.strip() or "a process that has not said its name"
        if e.errno not in _NO_LOCKS:
            raise
        log.warning("this file system has no locks (%s): nothing keeps a second endpoint out of here", e.strerror)
        return ""
    name = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    os.pwrite(fd, name, 0)  # over what an earlier one has said: nobody reads an empty file
    os.ftruncate(fd, len(name))
    return ""
