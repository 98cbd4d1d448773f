"""A connection of a test's own, with a fresh queue."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from lab.broker import PrivateBroker
from wire.connection import Connection


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
