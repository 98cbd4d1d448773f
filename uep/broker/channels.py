"""Opens the channels of one session: where heartbeats and results go, where tasks come from.

The service may give one URL for all three, or different users for each: there is a connection for each different URL;
that for heartbeats is the session's own. When any is lost, `endpoint` gives up all and begins a new session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from wire.connection import Connection
from wire.consumer import Consumer, Delivery
from wire.publisher import Publisher
from wire.queues import EndpointCredentials


class SessionChannels:
    """Channels on `connection`, which belongs to the caller, and on further connections, which `close` closes."""

    def __init__(
        self,
        connection: Connection,
        credentials: EndpointCredentials,
        open_connection: Callable[[str], Awaitable[Connection]] = Connection.open,
    ) -> None:
        self.credentials = credentials
        self._open = open_connection
        self._connections = {credentials.heartbeats.connection_url: connection}
        self._publishers: dict[str, Publisher] = {}

    async def heartbeats(self) -> Publisher:
        """Opens the channel for heartbeats, once.

        Raises:
            BrokerError: no connection, or no channel.
        """
        return await self._publisher(self.credentials.heartbeats.connection_url)

    async def results(self) -> Publisher:
        """Opens the channel for results, once; the one of the heartbeats where both have the same URL.

        Raises:
            BrokerError: no connection, or no channel.
        """
        return await self._publisher(self.credentials.results.connection_url)

    async def consume(self, receive: Callable[[Delivery], None], prefetch: int, most_bytes: int) -> Consumer:
        """Starts deliveries from the task queue to `receive`.

        Raises:
            BrokerError: no connection, or the queue cannot be read.
        """
        source = self.credentials.tasks
        connection = await self._connection(source.connection_url)
        return await connection.consume(source.queue, receive, prefetch=prefetch, most_bytes=most_bytes, exclusive=True)

    async def lost(self) -> None:
        """Waits until one of the connections is lost.

        Raises:
            BrokerError: always, with the reason.
        """
        waits = {asyncio.ensure_future(c.lost.wait()): c for c in self._connections.values()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        raise waits[done.pop()].reason

    async def close(self) -> None:
        """Closes the further connections."""
        _, *further = self._connections.values()
        for connection in further:
            await connection.close()

    async def _connection(self, url: str) -> Connection:
        if url not in self._connections:
            self._connections[url] = await self._open(url)
        return self._connections[url]

    async def _publisher(self, url: str) -> Publisher:
        if url not in self._publishers:
            self._publishers[url] = await (await self._connection(url)).publisher()
        return self._publishers[url]
