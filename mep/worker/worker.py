"""The manager's side of the broker: the sessions for commands and for heartbeats, which are made anew when lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from mep.worker.consumer import CommandConsumer
from mep.worker.heartbeats import Heartbeats
from wire.connection import Connection
from wire.errors import BrokerError
from wire.reconnect import stay_connected

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who is told how the connection is doing."""

    def connected(self) -> None:
        """Commands are being consumed."""

    def not_connected(self, reason: str) -> None:
        """Commands cannot come, and why."""


class Worker:
    """Keeps one connection for commands and one for heartbeats. The URLs name the broker and hold passwords."""

    def __init__(
        self, commands_url: str, consumer: CommandConsumer, heartbeats_url: str, heartbeats: Heartbeats
    ) -> None:
        self._commands_url = commands_url
        self._consumer = consumer
        self._heartbeats_url = heartbeats_url
        self._heartbeats = heartbeats
        self._consuming: asyncio.Future[None] | None = None
        self._beating: asyncio.Future[None] | None = None

    async def probe(self) -> None:
        """Raises BrokerError when the broker cannot be reached now."""
        await (await Connection.open(self._commands_url)).close()

    def start(self, listener: Listener) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
        """Starts both sessions. The futures end only when something is broken in this program."""

        async def consume(connection: Connection) -> None:
            await self._consumer.session(connection, listener.connected)

        self._consuming = _kept_up(self._commands_url, consume, "commands", listener)
        self._beating = _kept_up(self._heartbeats_url, self._heartbeats.session, "heartbeats", listener)
        return self._consuming, self._beating

    async def finish(self, timeout: float) -> None:
        """Takes no more commands; those under way have `timeout` seconds to come to their end."""
        self._heartbeats.stop()
        await self._consumer.finish(timeout)
        await _ended(self._consuming)

    async def close(self, timeout: float) -> None:
        """Waits until the last heartbeat has been sent, at most `timeout` seconds, and closes the connections."""
        if self._beating is not None:
            await asyncio.wait({self._beating}, timeout=timeout)
        await _ended(self._beating)


def _kept_up(
    url: str, session: Callable[[Connection], Awaitable[None]], what: str, listener: Listener
) -> asyncio.Future[None]:
    def trouble(error: BrokerError, wait: float) -> None:
        log.warning("connection for %s: %s; next attempt in %.1f s", what, error, wait)
        listener.not_connected(str(error))

    return asyncio.ensure_future(stay_connected(lambda: Connection.open(url), session, trouble))


async def _ended(task: asyncio.Future[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
