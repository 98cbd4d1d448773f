"""Takes the connections of those who ask how the manager is: HTTP/1.1 on a Unix socket, read with h11.

Root, the manager's own account and members of one group may ask; the kernel says who does. A connection has one
request, without a body, and one answer. Nobody holds up others: a connection has TIME seconds, a request MOST_REQUEST
bytes, and there are SHARE connections of an account, MOST in all; those of root and of the manager do not count. Each
counts for REST seconds longer than it lasts, so that nobody asks without a pause. Who is not answered asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import h11

from mep.processes import named_sockets
from mep.processes.status_protocol import TIME
from mep.processes.time_limit import within
from mep.worker.api import Answer, refusal

MOST = 32
SHARE = 8
MOST_REQUEST = 8192
REST = 0.25
_PAUSE = 1.0
"""Seconds until connections are accepted again after there was no descriptor for one."""
_CHUNK = 4096
_HEADERS = [
    ("Connection", "close"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
]


class ApiServer:
    """listening: takes connections already. manager: its uid. readers: the group whose members may ask, too. answer:
    gives the answer to a GET of an address."""

    def __init__(
        self,
        listening: socket.socket,
        manager: int,
        readers: int | None,
        answer: Callable[[str], Awaitable[Answer]],
    ) -> None:
        self._listening = listening
        self._always = (0, manager)
        self._readers = readers
        self._answer = answer
        self._serving: set[asyncio.Task[None]] = set()
        self._of_uid: Counter[int] = Counter()

    async def serve(self) -> None:
        """Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)  # while others wait, `sock_accept` does not: nobody else would have a turn
            try:
                connection, _ = await loop.sock_accept(self._listening)
                uid = named_sockets.peer(connection).uid
            except OSError:
                await asyncio.sleep(_PAUSE)
                continue
            if not self._may_ask(connection, uid) or not self._has_room(uid):
                connection.close()
                continue
            self._of_uid[uid] += 1
            task = loop.create_task(self._serve(connection, uid))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    def _may_ask(self, connection: socket.socket, uid: int) -> bool:
        if uid in self._always:
            return True
        try:
            return self._readers is not None and named_sockets.is_member(connection, self._readers)
        except OSError:
            return False

    def _has_room(self, uid: int) -> bool:
        others = sum(count for other, count in self._of_uid.items() if other not in self._always)
        return self._of_uid[uid] < SHARE and (uid in self._always or others < MOST)

    async def _serve(self, connection: socket.socket, uid: int) -> None:
        try:
            with connection, contextlib.suppress(OSError, asyncio.TimeoutError):  # it has gone, or is slow
                await within(TIME, self._exchange(connection))
        finally:
            asyncio.get_running_loop().call_later(REST, self._forget, uid)

    def _forget(self, uid: int) -> None:
        self._of_uid[uid] -= 1
        if not self._of_uid[uid]:
            del self._of_uid[uid]

    async def _exchange(self, connection: socket.socket) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_REQUEST)
        try:
            request = await _request(connection, http)
        except h11.RemoteProtocolError as e:
            await _send(connection, http, refusal(HTTPStatus(e.error_status_hint), str(e)))
            return
        if request is None:
            return
        if request.method not in (b"GET", b"HEAD"):
            await _send(connection, http, refusal(HTTPStatus.METHOD_NOT_ALLOWED, "nothing can be changed here: GET"))
            return
        answer = await self._answer(request.target.decode("ascii", "replace"))
        await _send(connection, http, answer, only_head=request.method == b"HEAD")


async def _request(connection: socket.socket, http: h11.Connection) -> h11.Request | None:
    """The request; None when it has gone. Raises RemoteProtocolError, OSError."""
    loop = asyncio.get_running_loop()
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        http.receive_data(await loop.sock_recv(connection, _CHUNK))


async def _send(connection: socket.socket, http: h11.Connection, answer: Answer, *, only_head: bool = False) -> None:
    """Raises OSError."""
    length = ("Content-Length", str(len(answer.body)))
    allowed = [("Allow", "GET, HEAD")] if answer.status is HTTPStatus.METHOD_NOT_ALLOWED else []
    headers = [("Content-Type", answer.kind), length, *allowed, *_HEADERS]
    parts = (
        h11.Response(status_code=answer.status, headers=headers, reason=answer.status.phrase.encode()),
        h11.Data(b"" if only_head else answer.body),
        h11.EndOfMessage(),
    )
    loop = asyncio.get_running_loop()
    for part in parts:
        if data := http.send(part):
            await loop.sock_sendall(connection, data)
