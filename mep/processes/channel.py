"""Messages between the monitor and a process of its own, over a socket that keeps them apart (SOCK_SEQPACKET).

A message is a header of fixed size, a JSON object of at most BODY bytes, and sealed files in memory with what is
larger, which may be passed on unread. Each kind says how many files it has, and how large each may be. What does not
fit ends the channel: whoever sent it is not to be trusted, and is replaced.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mep.processes.sealed_file import SealedFile
from mep.request.credentials import Unread

HEADER = struct.Struct("!HI")
"""The kind of the message, and the number of what it is about."""
BODY = 4096
"""Bytes of a body."""
AT_ONCE = 64
"""Messages that are taken before everything else has its turn."""
MOST_WAITING = 20_000
"""Messages that may wait until the other side reads them. It hangs when there are more."""
MOST_FILES = 8
"""Files of one message."""

Files = Sequence[SealedFile]
Message = tuple[int, int, Mapping[str, Any], Files]
Take = Callable[[int, int, Mapping[str, Any], Files], None]
"""Takes a message: its kind, its number, its body, its files. Raises ValueError, TypeError or KeyError when it makes no
sense, which ends the channel."""
Limits = Mapping[int, Sequence[int]]
"""The kinds of messages that come with files, and how many bytes each of these may have."""


class Senseless(ValueError):
    """A message is not of the form that messages have."""


class Channel:
    """One end. Owns the socket.

    files: of what comes in. lost: told once, and why, when nothing comes any more; not after `close`.
    """

    def __init__(self, connection: socket.socket, files: Limits, take: Take, lost: Callable[[str], None]) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._files = files
        self._take = take
        self._lost = lost
        self._waiting: collections.deque[tuple[bytes, Sequence[Unread]]] = collections.deque()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._receive)

    def send(self, kind: enum.IntEnum, number: int = 0, *, files: Sequence[Unread] = (), **body: object) -> None:
        """Sends a message, or keeps it until the other side reads. Nothing is sent when the channel has ended."""
        if self._closed:
            return
        data = HEADER.pack(kind, number) + json.dumps(body).encode()
        assert len(data) <= HEADER.size + BODY, f"{kind!r} has {len(data)} bytes"
        self._waiting.append((data, files))
        if len(self._waiting) == 1:
            self._flush()
        elif len(self._waiting) > MOST_WAITING:
            self._end("it does not read what it is told")

    def close(self) -> None:
        """Ends it; nobody is told."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        self._waiting.clear()

    def _flush(self) -> None:
        while self._waiting:
            data, files = self._waiting[0]
            try:
                socket.send_fds(self._connection, [data], [file.descriptor for file in files])
            except BlockingIOError:
                self._loop.add_writer(self._connection, self._flush)
                return
            except OSError as e:
                self._end(e.strerror or str(e))
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._connection)

    def _receive(self) -> None:
        try:
            for _ in range(AT_ONCE):
                if self._closed:
                    return
                message = _receive(self._connection, self._files)
                if message is None:
                    self._end("it has ended")
                    return
                self._take(*message)
        except BlockingIOError:
            return
        except OSError as e:
            self._end(e.strerror or str(e))
        except (ValueError, TypeError, KeyError, RecursionError) as e:
            self._end(f"what it said makes no sense ({type(e).__name__}: {e})"[:500])

    def _end(self, why: str) -> None:
        if not self._closed:
            self.close()
            self._lost(why)


def _receive(connection: socket.socket, limits: Limits) -> Message | None:
    """The next message; None at the end. Raises BlockingIOError, Senseless, ValueError."""
    data, descriptors, flags, _ = socket.recv_fds(connection, HEADER.size + BODY + 1, MOST_FILES)
    files = list(map(SealedFile, descriptors))  # from here on they are closed, whatever comes
    if not data and not files:
        return None
    if not HEADER.size <= len(data) <= HEADER.size + BODY or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise Senseless("a message is too short or too long")
    kind, number = HEADER.unpack_from(data)
    body = json.loads(data[HEADER.size :])
    if not isinstance(body, dict):
        raise Senseless("a body is no object")
    allowed = limits.get(kind, ())
    if len(files) != len(allowed):
        raise Senseless(f"a message of kind {kind} came with {len(files)} descriptors")
    for file, most in zip(files, allowed, strict=True):
        file.require(most)
    return kind, number, body, files
