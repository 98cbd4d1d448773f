"""Tells the service that this endpoint cannot start, when it has not even connected.

`cli` calls `publish_start_failure` for a configuration that cannot be used. The service then fails the waiting tasks
with the text: the user's future ends with it instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import logging

from uep import config
from uep.handover import HandOver
from wire.errors import BrokerError
from wire.failure_notice import publish_failure_notice
from wire.queues import read_credentials
from wire.time_limit import within

log = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds to try at most: the manager will say the same when it sees the exit code."""


async def publish_start_failure(handover: HandOver, text: str) -> None:
    """Publishes the notice and waits for the broker's confirm; never raises."""
    target = read_credentials(handover.credentials, config.amqp_port(handover.config)).heartbeats
    try:
        await within(PATIENCE, publish_failure_notice(target, handover.endpoint_id, text))
    except (BrokerError, asyncio.TimeoutError) as e:
        log.error("the service could not be told: %s", e or "no answer in time")
