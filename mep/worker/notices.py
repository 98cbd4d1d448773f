"""Tells the service that a user endpoint could not start: the waiting futures of its user end with the text.

A notice goes over a connection of its own, with the credentials that came in the command: the manager's own account
at the broker has no right to speak for a user endpoint.
"""

from __future__ import annotations

import asyncio
import logging

from mep.worker.commands import NoticeAddress
from wire import backoff
from wire.amqp import AccessRefused, publish_once
from wire.messages import StatusReport, pack

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often a notice is tried, with growing pauses: about 6 s in all."""
ATTEMPT_TIMEOUT = 20.0
"""Seconds for one attempt: a broker short of memory takes messages and never confirms them."""
_HEARTBEAT_PERIOD = 3
"""What a failed endpoint reports as its period, as the public package does: the service forgets it soon."""


async def send(address: NoticeAddress, text: str, request_id: str) -> bool:
    """Publishes the notice; True once the broker has confirmed it, False when it had to be given up."""
    report = StatusReport(address.endpoint_id, {"error": text, "heartbeat_period": _HEARTBEAT_PERIOD})
    for wait, _ in zip(backoff.delays(), range(ATTEMPTS), strict=False):
        try:
            await asyncio.wait_for(publish_once(address.target, pack(report)), ATTEMPT_TIMEOUT)
        except AccessRefused as e:
            log.error("[%s] failure notice not sent: %s", request_id, e)
            return False
        except Exception as e:  # noqa: BLE001 - also credentials that no connection can be made of
            log.warning("[%s] failure notice not sent yet: %s; next attempt in %.1f s", request_id, e, wait)
            await asyncio.sleep(wait)
        else:
            return True
    log.error("[%s] failure notice given up; the user's future waits until the service ends it", request_id)
    return False
