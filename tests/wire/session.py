"""A connection to a real broker with a queue of its own, for tests of what goes over it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from lab.broker import PrivateBroker
from wire.connection import Connection
from wire.queues import Target


def target(queue: str, **changes: Any) -> Target:
    """Publishes straight into `queue`, through the default exchange."""
    fields = {"connection_url": "", "exchange": "", "routing_key": queue, "properties": {"content_type": "text/plain"}}
    return Target(**{**fields, **changes})


def run(
    broker: PrivateBroker,
    session: Callable[[Connection, str], Coroutine[Any, Any, None]],
    seconds: float = 20,
    **declared: bool,
) -> None:
    """Runs `session`, for at most so long, with a connection and the name of a fresh queue that is `declared` so."""

    async def work() -> None:
        connection = await Connection.open(broker.url)
        try:
            queue = uuid.uuid4().hex
            channel = await connection.channel()
            is_there = asyncio.Event()
            channel.queue_declare(queue, **(declared or {"auto_delete": True}), callback=lambda _: is_there.set())
            await asyncio.wait_for(is_there.wait(), 5)
            await asyncio.wait_for(session(connection, queue), seconds)
        finally:
            await connection.close()

    asyncio.run(work())
