"""Sockets with a name in a folder: a manager's, on which commands ask it. Only who may enter the folder comes there."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BACKLOG = 16
"""Connections that wait until they are accepted."""
_PAUSE = 0.05
_SO_PEERGROUPS = 59
"""From <asm-generic/socket.h>."""
_GROUP, _MOST_GROUPS = struct.Struct("I"), 256
"""What a group is there, and of how many Python asks; who has more is no member."""
_CREDENTIALS = struct.Struct("3i")
"""Pid, uid, gid (SO_PEERCRED, unix(7))."""


@dataclass(frozen=True)
class Peer:
    """Who is at the other end, as the kernel says: whoever has connected, made the pair of sockets, or listens."""

    pid: int
    uid: int


def listen(folder: Path, name: str, kind: socket.SocketKind) -> socket.socket:
    """Takes connections under that name, which is for our own account alone. Only for who holds the folder's lock.

    Raises:
        OSError: the name cannot be made.
    """
    (folder / name).unlink(missing_ok=True)  # of one that was killed
    listening = socket.socket(socket.AF_UNIX, kind)
    try:
        with _short(folder, name) as path:
            listening.bind(path)
        (folder / name).chmod(0o600)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


@contextlib.contextmanager
def connected(folder: Path, name: str, kind: socket.SocketKind, within: float) -> Iterator[socket.socket]:
    """A connection. To be made, and for each later step, it has `within` seconds.

    Raises:
        FileNotFoundError, ConnectionRefusedError: nobody listens.
        TimeoutError: so many wait already that there was no place to wait.
        OSError: there is none.
    """
    deadline = time.monotonic() + within
    with _short(folder, name) as path, socket.socket(socket.AF_UNIX, kind) as connection:
        connection.settimeout(within)
        while True:
            try:
                connection.connect(path)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(_PAUSE)
        yield connection


def peer(connection: socket.socket) -> Peer:
    """Asks the kernel. Raises OSError."""
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid)


def is_member(connection: socket.socket, group: int) -> bool:
    """Whether who is at the other end is a member of the group, as the kernel says. Raises OSError."""
    groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * _GROUP.size)
    _, _, own = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return group in {own, *(each for (each,) in _GROUP.iter_unpack(groups))}


@contextlib.contextmanager
def _short(folder: Path, name: str) -> Iterator[str]:
    """A path of the socket that is short enough for one (unix(7)), however long the folder's is. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
