"""The notice that a user endpoint could not start: the service fails the tasks that wait for it with the text.

It goes over a connection of its own, with the credentials that were meant for the user endpoint. The manager sends it,
whose own account at the broker has no right to speak for a user endpoint; and so does a user endpoint whose
configuration cannot be used, which has no connection yet.
"""

from __future__ import annotations

from wire.connection import Connection
from wire.messages import StatusReport, pack
from wire.queues import Target

HEARTBEAT_PERIOD = 3
"""Seconds; what a failed endpoint reports as its period, as the public package does: the service forgets it soon."""


def failure_notice(endpoint_id: str, text: str) -> bytes:
    """Packs the notice: a status report with an error."""
    return pack(StatusReport(endpoint_id, {"error": text, "heartbeat_period": HEARTBEAT_PERIOD}))


async def publish_failure_notice(target: Target, endpoint_id: str, text: str) -> None:
    """Publishes the notice to `target`, which is where the endpoint's heartbeats go; once, and without a time limit.

    Raises:
        BrokerError: no connection, or the errors of `Publisher.publish`.
    """
    await publish_once(target, failure_notice(endpoint_id, text))


async def publish_once(target: Target, body: bytes) -> None:
    """Publishes one message over a connection of its own, and returns once the broker has confirmed it.

    Raises:
        BrokerError: no connection, or the errors of `Publisher.publish`.
    """
    connection = await Connection.open(target.connection_url)
    try:
        publisher = await connection.publisher()
        await publisher.publish(target, body)
    finally:
        await connection.close()
