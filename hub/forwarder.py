"""`mep-hub forward`: on a host without the hub, takes the port that clients ask and speaks TLS to the hub.

The public client asks `http://localhost:5000`, whoever listens there. systemd holds that port (mep-hub-forward.socket),
and the hub must prove its name by a certificate. Bytes are passed on as they are; nothing of them is read here.

Each connection is a task of its own with limits on its time, and each account of the host has so many at most: who is
slow, hangs, or opens a thousand holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass

from hub import systemd
from wire.listeners import account_of_connection
from wire.time_limit import within

log = logging.getLogger(__name__)

MOST_OF_ONE_ACCOUNT = 64
MOST_CONNECTIONS = 1024
MOST_REFUSED = 128
"""Connections that are told at the same time why they are refused; more are closed without a word."""
STEP_TIMEOUT = 10.0
"""Seconds for one attempt to reach the hub: its name, TCP and TLS."""
PATIENCE = 30.0
"""Seconds to try for while the hub restarts; who asks waits meanwhile."""
BETWEEN_ATTEMPTS = 0.5
SILENCE = 900.0
"""Seconds without a byte either way after which a connection is closed. A task's result may take the hub as long."""
GRACE = 2.0
"""Seconds for open connections to end after SIGTERM, and for one that was refused to read why."""
FLUSH = 60.0
"""Seconds for a client to take the last of an answer."""
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Destination:
    """The hub: its certificate must be for `host`, and issued by whom `trust` trusts."""

    host: str
    port: int
    trust: ssl.SSLContext


class NotReached(Exception):
    """The hub cannot be reached, or has not proved its name; the text says why."""


class Forwarder:
    """Takes connections and passes on what they say."""

    def __init__(self, destination: Destination) -> None:
        self._to = destination
        self._accounts: Counter[int | None] = Counter()
        self._refused = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self, listening: list[socket.socket]) -> None:
        """Serves until SIGTERM or SIGINT."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        servers = [await asyncio.start_server(self._came, sock=each) for each in listening]
        log.info("Ready: to %s port %d", self._to.host, self._to.port)
        systemd.notify_ready()
        await stopped.wait()
        for server in servers:
            server.close()
        if self._connections:
            await asyncio.wait(self._connections, timeout=GRACE)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            try:
                peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
                account = await asyncio.to_thread(account_of_connection, peer, own)
                if self._accounts[account] >= MOST_OF_ONE_ACCOUNT:
                    await self._refuse(
                        reader, writer, 429, f"more than {MOST_OF_ONE_ACCOUNT} connections of this account"
                    )
                elif self._accounts.total() >= MOST_CONNECTIONS:
                    await self._refuse(reader, writer, 503, f"{MOST_CONNECTIONS} connections are open")
                else:
                    self._accounts[account] += 1
                    try:
                        await self._pass_on(reader, writer)
                    finally:
                        self._accounts[account] -= 1
            finally:
                await _close(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_hub, to_hub = await self._reach()
        except NotReached as e:
            log.error("The hub is not reached: %s", e)
            await self._refuse(reader, writer, 503, f"the hub cannot be reached: {e}")
            return
        try:
            moved = _Moved()
            ways = [
                asyncio.ensure_future(_pump(reader, to_hub, moved)),
                asyncio.ensure_future(_pump(from_hub, writer, moved)),
                asyncio.ensure_future(moved.silent()),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            to_hub.transport.abort()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to the hub, which may be about to come back.

        Raises:
            NotReached: it has not for PATIENCE, or it is not who it should be.
        """
        give_up = time.monotonic() + PATIENCE
        host, port, trust = self._to.host, self._to.port, self._to.trust
        while True:
            try:
                return await within(STEP_TIMEOUT, asyncio.open_connection(host, port, ssl=trust, server_hostname=host))
            except ssl.SSLCertVerificationError as e:
                # Nothing that another attempt would change, and maybe somebody else in its place.
                raise NotReached(f"the certificate at {host} port {port} is refused: {e.verify_message}") from None
            except (OSError, asyncio.TimeoutError) as e:
                if time.monotonic() > give_up:
                    reason = e.strerror if isinstance(e, OSError) and e.strerror else type(e).__name__
                    raise NotReached(f"{host} port {port}: {reason}") from None
            await asyncio.sleep(BETWEEN_ATTEMPTS)

    async def _refuse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, reason: str
    ) -> None:
        """Answers in HTTP; the public client tries again later. What it still sends is taken, or it would not read."""
        if self._refused >= MOST_REFUSED:
            return
        self._refused += 1
        try:
            body = f"mep-hub forward: {reason}\n".encode()
            head = (
                f"HTTP/1.1 {status} Not now\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
            )
            writer.write(f"{head}\r\n".encode() + body)
            await within(GRACE, writer.drain())
            writer.write_eof()
            await within(GRACE, _end(reader))
        finally:
            self._refused -= 1


class _Moved:
    """When the last byte of a connection was moved, either way."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    async def silent(self) -> None:
        """Returns once nothing has been moved for SILENCE."""
        while (left := self.at + SILENCE - time.monotonic()) > 0:
            await asyncio.sleep(left)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, moved: _Moved) -> None:
    """Passes on until the source ends; never has more than a buffer of what the sink has not taken."""
    while data := await source.read(_CHUNK):
        moved.at = time.monotonic()
        sink.write(data)
        await sink.drain()
        moved.at = time.monotonic()


async def _end(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK):
        pass


async def _close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection, once the peer has taken what is written, or does not for FLUSH."""
    writer.close()
    try:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await within(FLUSH, writer.wait_closed())
    finally:
        writer.transport.abort()
