"""The policy of staying connected: when a connection is lost, wait (`wire.backoff`) and begin again with another.

The manager, the user endpoint and the hub differ in their sessions only: what a program does on a connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from wire import backoff
from wire.connection import Connection
from wire.errors import BrokerError, ConnectionLost

STABLE = 10.0
"""Seconds after which a connection counts as good: the waits between attempts then begin small again."""


async def stay_connected(
    open_connection: Callable[[], Awaitable[Connection]],
    session: Callable[[Connection], Awaitable[None]],
    on_trouble: Callable[[BrokerError, float], None],
) -> None:
    """Runs `session` on a connection, on a new one whenever the old one is lost, until a session returns.

    A session is cancelled when its connection is lost. `on_trouble` is told what happened and how many seconds pass
    before the next attempt. The connection is closed in the end, whatever happens.
    """
    waits = backoff.delays()
    while True:
        try:
            connection = await open_connection()
            try:
                began = time.monotonic()
                if await _until_lost(connection, session):
                    return
                # A session that fails at once (its queue is taken, say) must not be begun again five times a second.
                if time.monotonic() - began > STABLE:
                    waits = backoff.delays()
                raise connection.reason
            finally:
                await connection.close()
        except BrokerError as e:
            wait = next(waits)
            on_trouble(e, wait)
            await asyncio.sleep(wait)


async def _until_lost(connection: Connection, session: Callable[[Connection], Awaitable[None]]) -> bool:
    """True when the session ended by itself; False when the connection was lost first."""
    running = asyncio.ensure_future(session(connection))
    lost = asyncio.ensure_future(connection.lost.wait())
    try:
        await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return False
        try:
            running.result()
        except ConnectionLost:
            return False
        return True
    finally:
        for task in (running, lost):
            task.cancel()
        await asyncio.gather(running, lost, return_exceptions=True)
