"""Tells the service that the manager is there: a heartbeat every period, and a last one when it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wire.connection import Connection
from wire.messages import StatusReport, pack
from wire.publisher import Publisher
from wire.queues import Target


class Heartbeats:
    """The heartbeats of one endpoint. `period` gives the seconds between two of them, as they are in force."""

    def __init__(self, endpoint_id: str, period: Callable[[], float]) -> None:
        self._endpoint_id = endpoint_id
        self._period = period
        self._stopping = asyncio.Event()
        self._says_goodbye = False

    def stop(self, *, goodbye: bool) -> None:
        """Has the session end. goodbye: with a last heartbeat, which says that the manager goes for good; without one
        the service waits for the next manager."""
        self._says_goodbye = goodbye
        self._stopping.set()

    async def session(self, connection: Connection, target: Target) -> None:
        """Sends heartbeats to `target` until `stop`, or until the connection is lost."""
        publisher = await connection.publisher()
        while not self._stopping.is_set():
            period = self._period()
            await self._publish(publisher, target, period)
            waiting = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait({waiting}, timeout=period)
            finally:
                waiting.cancel()
        if self._says_goodbye:
            await self._publish(publisher, target, 0)

    async def _publish(self, publisher: Publisher, target: Target, period: float) -> None:
        report = StatusReport(self._endpoint_id, {"heartbeat_period": period})
        await publisher.publish(target, pack(report))
