"""Tries what the manager does at the broker, without being in the way of one that runs.

For `mep check`, and for `instances`, which wants to know who else takes the commands.
"""

from __future__ import annotations

from wire.connection import Connection
from wire.queues import Source


async def probe(commands: Source) -> int:
    """Logs in as the manager, and asks how many managers take commands from its queue now. Takes no command and
    disturbs no consumer.

    Raises:
        Unreachable: no connection can be made, or TLS fails.
        AccessRefused: user and password are not accepted.
        QueueGone: there is no such queue.
        ConnectionLost: the broker has ended the connection.
    """
    connection = await Connection.open(commands.connection_url)
    try:
        return await connection.look_for(commands.queue)
    finally:
        await connection.close()
