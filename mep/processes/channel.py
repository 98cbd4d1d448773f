"""Messages between the monitor and a process of its own, over a socket that keeps them apart (SOCK_SEQPACKET).

A message is a header of fixed size, a JSON object of at most BODY bytes, and at most one sealed file in memory with
what is larger. Each kind has a limit for its file. What does not fit ends the channel: whoever sent it is not to be
trusted, and is replaced.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import fcntl
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from mep.processes.sealed_file import sealed

HEADER = struct.Struct("!HI")
"""The kind of the message, and the number of what it is about."""
BODY = 4096
"""Bytes of a body."""
AT_ONCE = 64
"""Messages that are taken before everything else has its turn."""
MOST_WAITING = 20_000
"""Messages that may wait until the other side reads them. It hangs when there are more."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Message = tuple[int, int, Mapping[str, Any], bytes | None]
Take = Callable[[int, int, Mapping[str, Any], bytes | None], None]
"""Takes a message: its kind, its number, its body, what its file holds. Raises ValueError, TypeError or KeyError when
it makes no sense, which ends the channel."""


class Senseless(ValueError):
    """A message is not of the form that messages have."""


class Channel:
    """One end. Owns the socket.

    files: the kinds of messages that come with a file, and how many bytes that may have. lost: told once, and why, when
    nothing comes any more; not after `close`.
    """

    def __init__(
        self, connection: socket.socket, files: Mapping[int, int], take: Take, lost: Callable[[str], None]
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._files = files
        self._take = take
        self._lost = lost
        self._waiting: collections.deque[tuple[bytes, int | None]] = collections.deque()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._receive)

    def send(self, kind: enum.IntEnum, number: int = 0, *, file: bytes | None = None, **body: object) -> None:
        """Sends a message, or keeps it until the other side reads. Nothing is sent when the channel has ended."""
        if self._closed:
            return
        data = HEADER.pack(kind, number) + json.dumps(body).encode()
        assert len(data) <= HEADER.size + BODY, f"{kind!r} has {len(data)} bytes"
        self._waiting.append((data, None if file is None else sealed("mep", file)))
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
        while self._waiting:
            _, descriptor = self._waiting.popleft()
            if descriptor is not None:
                os.close(descriptor)

    def _flush(self) -> None:
        while self._waiting:
            data, descriptor = self._waiting[0]
            try:
                socket.send_fds(self._connection, [data], [] if descriptor is None else [descriptor])
            except BlockingIOError:
                self._loop.add_writer(self._connection, self._flush)
                return
            except OSError as e:
                self._end(e.strerror or str(e))
                return
            self._waiting.popleft()
            if descriptor is not None:
                os.close(descriptor)
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


def _receive(connection: socket.socket, files: Mapping[int, int]) -> Message | None:
    """The next message; None at the end. Raises BlockingIOError, Senseless, ValueError."""
    data, descriptors, flags, _ = socket.recv_fds(connection, HEADER.size + BODY + 1, 4)
    with contextlib.ExitStack() as opened:
        for descriptor in descriptors:
            opened.callback(os.close, descriptor)
        if not data and not descriptors:
            return None
        if not HEADER.size <= len(data) <= HEADER.size + BODY or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Senseless("a message is too short or too long")
        kind, number = HEADER.unpack_from(data)
        body = json.loads(data[HEADER.size :])
        if not isinstance(body, dict):
            raise Senseless("a body is no object")
        if len(descriptors) != int(kind in files):
            raise Senseless(f"a message of kind {kind} came with {len(descriptors)} descriptors")
        return kind, number, body, _content(descriptors[0], files[kind]) if descriptors else None


def _content(descriptor: int, most: int) -> bytes:
    """What is in a sealed file in memory. Reading it never waits: other kinds of descriptors have no seals."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise Senseless("a descriptor is no file in memory") from None
    if seals & _SEALS != _SEALS:
        raise Senseless("a file is not sealed")
    size = os.fstat(descriptor).st_size
    if size > most:
        raise Senseless(f"a file has {size} bytes; the limit is {most}")
    data = bytearray()
    while len(data) < size and (chunk := os.pread(descriptor, size - len(data), len(data))):
        data += chunk
    return bytes(data)
