"""Answers those who ask how the manager is (`processes.status_protocol`), with what the monitor says.

Only root and the manager's own account may ask; the kernel says who does. Nobody who is slow at it holds up others: a
connection has TIME seconds, a question MOST_QUESTION bytes, and there are MOST connections at a time. Whoever is not
answered asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable

from mep.processes import named_sockets
from mep.processes.status_protocol import MOST_QUESTION, QUESTION, TIME
from mep.processes.time_limit import within

MOST = 8
_PAUSE = 1.0
"""Seconds until connections are accepted again after there was no descriptor for one."""


class StatusServer:
    """listening: takes connections already. manager: its uid. ask: asks the monitor for the line that is answered."""

    def __init__(self, listening: socket.socket, manager: int, ask: Callable[[], Awaitable[bytes]]) -> None:
        self._listening = listening
        self._manager = manager
        self._ask = ask
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
                peer = named_sockets.peer(connection)
            except OSError:
                await asyncio.sleep(_PAUSE)
                continue
            if len(self._serving) >= MOST or peer.uid not in (0, self._manager):
                connection.close()
                continue
            task = loop.create_task(self._serve(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, asyncio.TimeoutError):  # it has gone, or is slow
            await within(TIME, self._exchange(connection))

    async def _exchange(self, connection: socket.socket) -> None:
        loop, question = asyncio.get_running_loop(), b""
        while not question.endswith(b"\n") and len(question) < MOST_QUESTION:
            more = await loop.sock_recv(connection, MOST_QUESTION - len(question))
            if not more:
                break
            question += more
        await loop.sock_sendall(connection, await self._answer_to(question))

    async def _answer_to(self, question: bytes) -> bytes:
        try:
            asked = json.loads(question)
        except (ValueError, RecursionError):
            return b'{"error": "not JSON"}\n'
        return await self._ask() if asked == QUESTION else b'{"error": "unknown question"}\n'
