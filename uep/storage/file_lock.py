"""Locks a file for a process, also between hosts, and says who has it.

The lock is one of the process, not of the open file: what tasks leave running, or an engine has forked, does not hold
it, and the kernel releases it with the process's end. (A task in a thread of the endpoint that opens and closes this
very file releases it; so are such locks.) Home directories on NFS have them too.

`directory_lock` and `uep.environments` call it, in threads: the disk may be slow.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def open_file(path: Path) -> int:
    """Opens the file, made if it is not there; the lock goes with the descriptor.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def take(fd: int) -> str:
    """Tries to lock the file. Returns who else has it; nothing when it is ours, or there are no locks here."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in (errno.EACCES, errno.EAGAIN):
            said, _, _ = os.pread(fd, 200, 0).decode(errors="replace").partition("\n")
            return said.strip() or "a process that has not said its name"
        if e.errno not in _NO_LOCKS:
            raise
        log.warning("this file system has no locks (%s): nothing keeps another process out of here", e.strerror)
        return ""
    name = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    os.pwrite(fd, name, 0)  # over what an earlier one has said: nobody reads an empty file
    os.ftruncate(fd, len(name))
    return ""
