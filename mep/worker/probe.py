"""Tries what the manager does at the broker, without being in the way of one that runs: for `mep check`."""

from __future__ import annotations

from wire.connection import Connection
from wire.queues import Source


async def probe(commands: Source) -> None:
    """Logs in as the manager, and asks whether its queue is there. Takes no command and disturbs no consumer.

    Raises:
        Unreachable: no connection can be made, or TLS fails.
        AccessRefused: user and password are not accepted.
        QueueGone: there is no such queue.
        ConnectionLost: the broker has ended the connection.
    """
    connection = await Connection.open(commands.connection_url)
    try:
        await connection.look_for(commands.queue)
    finally:
        await connection.close()
