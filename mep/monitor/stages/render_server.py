"""One render server (`renderer.server`) as the monitor sees it: its process, the connection, the jobs that it has.

`renderer` starts it, and another one when this is lost. What passes between here and a child of the server is nobody
else's to see: each request has a socket pair of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import sys
from dataclasses import dataclass

from mep.processes import helper
from mep.processes.helper import HelperUnavailable
from mep.processes.render_protocol import ENDED, JOB
from mep.processes.supervised import SupervisedProcess
from mep.processes.time_limit import within
from mep.request.account import Account

START_LIMIT = 30.0
"""Seconds until a new server must be ready. Python packages may lie on a slow file system."""
MAX_ANSWER = 5 * 2**20
"""Bytes of one answer: a configuration of the largest size, in the widest characters."""


class ServerLost(Exception):
    """The server ended, or made no sense, before it told how a request's child had ended."""


@dataclass(frozen=True)
class Answer:
    """What a child wrote, of which at most MAX_ANSWER and a byte were read, and how it ended."""

    data: bytes
    exit_code: int
    late: bool


class RenderServer:
    """A running server and the connection to it, which this owns."""

    def __init__(self, process: SupervisedProcess, connection: socket.socket) -> None:
        self.process = process
        self.lost = False
        self._connection = connection
        self._numbers = itertools.count()
        self._jobs: dict[int, asyncio.Future[tuple[int, bool] | None]] = {}
        self._ready = self._expect(next(self._numbers))
        asyncio.get_running_loop().add_reader(connection, self._receive)

    @classmethod
    async def start(cls, account: Account) -> RenderServer:
        """A server that runs as the account and is ready. Raises HelperUnavailable."""
        try:
            return await within(START_LIMIT, cls._start(account))
        except asyncio.TimeoutError:
            reason = f"not ready after {START_LIMIT:g} s"
            raise HelperUnavailable(f"cannot start the render server as account {account.name!r}: {reason}") from None

    @classmethod
    async def _start(cls, account: Account) -> RenderServer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                process = await helper.start("mep.renderer.server", account, theirs)
        except BaseException:
            ours.close()
            raise
        server = cls(process, ours)
        try:
            await server._become_ready(account)
        except BaseException:
            server.end()
            raise
        return server

    async def _become_ready(self, account: Account) -> None:
        if await self._ready is None:
            reason = f"it ended at once; can that account read the Python packages under {sys.prefix}?"
            raise HelperUnavailable(f"cannot start the render server as account {account.name!r}: {reason}")

    async def exchange(self, request: bytes) -> Answer:
        """Has a child handle `request`. Raises ServerLost."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                ended = self._submit(theirs)
            data = await _converse(ours, request)
        how = await ended
        if how is None:
            raise ServerLost
        return Answer(data, *how)

    def end(self) -> None:
        """Kills it, and with it its children; whoever waits for it is told."""
        if self.lost:
            return
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        self.process.kill()
        for future in self._jobs.values():
            if not future.done():
                future.set_result(None)

    def _expect(self, number: int) -> asyncio.Future[tuple[int, bool] | None]:
        expected = self._jobs[number] = asyncio.get_running_loop().create_future()
        return expected

    def _submit(self, theirs: socket.socket) -> asyncio.Future[tuple[int, bool] | None]:
        if self.lost:
            raise ServerLost
        number = next(self._numbers)
        ended = self._expect(number)
        try:
            socket.send_fds(self._connection, [JOB.pack(number)], [theirs.fileno()])
        except OSError:  # it is gone, or so far behind that it might as well be
            self.end()
        return ended

    def _receive(self) -> None:
        try:
            number, exit_code, late = ENDED.unpack(self._connection.recv(ENDED.size + 1))
            ended = self._jobs.pop(number)
        except (OSError, struct.error, KeyError):  # its end, or garbage
            self.end()
            return
        if not ended.done():  # the request may have been given up
            ended.set_result((exit_code, late))


async def _converse(connection: socket.socket, request: bytes) -> bytes:
    """Sends the request and reads until the answer's end, or as far as the child got, or beyond MAX_ANSWER."""
    loop = asyncio.get_running_loop()
    answer = bytearray()
    with contextlib.suppress(OSError):  # the child is gone; what that means is told by its exit code
        await loop.sock_sendall(connection, request)
        connection.shutdown(socket.SHUT_WR)
        while len(answer) <= MAX_ANSWER and (chunk := await loop.sock_recv(connection, 2**16)):
            answer += chunk
    return bytes(answer)
