"""Messages between the monitor and a process of its own, in an event loop: `message` has their form.

What does not fit ends the channel: whoever sent it is not to be trusted, and is replaced.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mep.processes import message
from mep.processes.message import BODY, HEADER, MOST_FILES, Files, Limits, Message, Senseless
from mep.request.credentials import Unread

__all__ = ["BODY", "HEADER", "MOST_FILES", "Channel", "Files", "Limits", "Message", "Senseless", "Take"]

AT_ONCE = 64
"""Messages that are taken before everything else has its turn."""
MOST_WAITING = 20_000
"""Messages that may wait until the other side reads them. It hangs when there are more."""

Take = Callable[[int, int, Mapping[str, Any], Files], None]
"""Takes a message: its kind, its number, its body, its files. Raises ValueError, TypeError or KeyError when it makes no
sense, which ends the channel."""


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
        self._waiting.append((message.pack(kind, number, body), tuple(files)))
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
            if any(file.descriptor < 0 for file in files):  # closed by who does not wait for an answer any more
                self._waiting.popleft()
                continue
            try:
                message.send(self._connection, data, files)
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
                came = message.receive(self._connection, self._files)
                if came is None:
                    self._end("it has ended")
                    return
                self._take(*came)
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
