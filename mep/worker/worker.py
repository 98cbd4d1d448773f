"""The manager's side of the broker: the sessions for commands and for heartbeats, which are made anew when lost.

A broker that refuses the manager (its password, its queue) will do so again. So the service is asked then, which gives
a new password and queue, or refuses for good. What was merely lost is connected again with what is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mep.worker.consumer import CommandConsumer
from mep.worker.heartbeats import Heartbeats
from mep.worker.instances import Instances
from wire.connection import Connection
from wire.errors import BrokerError, ConnectionLost, Unwanted
from wire.queues import Source, Target
from wire.reconnect import stay_connected

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told how the connection is doing."""

    def connected(self) -> None:
        """Commands are being consumed."""

    def not_connected(self, reason: str) -> None:
        """Commands cannot come, and why."""

    def shared(self, others: int) -> None:
        """So many other instances of the endpoint take commands, too."""


@dataclass(frozen=True)
class Addresses:
    """Where commands come from and heartbeats go, as the service has said. They hold passwords."""

    commands: Source
    heartbeats: Target


Renew = Callable[[], Awaitable[Addresses]]
"""Asks the service for new addresses. Raises BrokerError when that is to be tried again later; whatever else it raises
ends the manager (EndpointUnwanted)."""


class Worker:
    """Keeps one connection for commands and one for heartbeats."""

    def __init__(self, addresses: Addresses, renew: Renew, consumer: CommandConsumer, heartbeats: Heartbeats) -> None:
        self._addresses = addresses
        self._refused: Addresses | None = None
        self._renew = renew
        self._renewing = asyncio.Lock()
        self._connections: set[Connection] = set()
        self._consumer = consumer
        self._heartbeats = heartbeats
        self._consuming: asyncio.Future[None] | None = None
        self._beating: asyncio.Future[None] | None = None
        self._watching: asyncio.Future[None] | None = None

    async def probe(self) -> None:
        """Raises BrokerError when the broker cannot be reached now."""
        await (await Connection.open(self._addresses.commands.connection_url)).close()

    def start(self, listener: Listener) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
        """Starts both sessions. The futures end only when the service refuses the endpoint for good
        (EndpointUnwanted), or something is broken in this program."""

        instances = Instances(lambda: self._addresses.commands, listener.shared)

        async def consume(connection: Connection, addresses: Addresses) -> None:
            with instances.counting_us():
                await self._consumer.session(connection, addresses.commands.queue, listener.connected)

        async def beat(connection: Connection, addresses: Addresses) -> None:
            await self._heartbeats.session(connection, addresses.heartbeats)

        self._consuming = self._kept_up(lambda known: known.commands.connection_url, consume, "commands", listener)
        self._beating = self._kept_up(lambda known: known.heartbeats.connection_url, beat, "heartbeats", listener)
        self._watching = asyncio.ensure_future(instances.watch())
        return self._consuming, self._beating

    async def finish(self, timeout: float, *, goodbye: bool) -> None:
        """Takes no more commands; those under way have `timeout` seconds to come to their end.

        goodbye: the service is told that the manager goes for good.
        """
        self._heartbeats.stop(goodbye=goodbye)
        await _ended(self._watching)
        await self._consumer.finish(timeout)
        await _ended(self._consuming)

    async def close(self, timeout: float) -> None:
        """Waits until the last heartbeat has been sent, at most `timeout` seconds, and closes the connections."""
        if self._beating is not None:
            await asyncio.wait({self._beating}, timeout=timeout)
        await _ended(self._beating)

    def _kept_up(
        self,
        url: Callable[[Addresses], str],
        session: Callable[[Connection, Addresses], Awaitable[None]],
        what: str,
        listener: Listener,
    ) -> asyncio.Future[None]:
        used = self._addresses

        async def connect() -> Connection:
            nonlocal used
            used = await self._current()
            return await Connection.open(url(used))

        async def on_connection(connection: Connection) -> None:
            self._connections.add(connection)
            try:
                await session(connection, used)
            finally:
                self._connections.discard(connection)

        def trouble(error: BrokerError, wait: float) -> None:
            then = "next attempt"
            if isinstance(error, Unwanted):
                self._refused = used
                then = "the service is asked for new queues and passwords"
            log.warning("connection for %s: %s; %s in %.1f s", what, error, then, wait)
            listener.not_connected(f"{error}; {then} soon" if isinstance(error, Unwanted) else str(error))

        return asyncio.ensure_future(stay_connected(connect, on_connection, trouble))

    async def _current(self) -> Addresses:
        """The addresses to connect with. New ones, when the broker has refused those that are known."""
        async with self._renewing:
            if self._refused is self._addresses:
                self._addresses = await self._renew()
                log.info("the service has given new queues and passwords")
                for connection in self._connections:  # what still runs with the old ones moves, too
                    connection.abandon(ConnectionLost("the service has given new queues and passwords"))
        return self._addresses


async def _ended(task: asyncio.Future[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
