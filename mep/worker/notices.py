"""Tells the service that a user endpoint could not start: the waiting futures of its user end with the text.

A notice goes over a connection of its own, with the credentials that came in the command: the manager's own account
at the broker has no right to speak for a user endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire import backoff
from wire.errors import AccessRefused
from wire.failure_notice import publish_failure_notice
from wire.queues import QueueInfoError, Target, read_endpoint_id, read_target
from wire.time_limit import within

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often a notice is tried, with growing pauses: about 6 s in all."""
AT_ONCE = 64
"""Notices under way at a time, each with a connection of its own."""
ATTEMPT_TIMEOUT = 20.0
"""Seconds for one attempt: a broker short of memory takes messages and never confirms them."""


@dataclass(frozen=True)
class NoticeAddress:
    """Whom to tell that a start failed: the user endpoint's id, and where the service listens."""

    endpoint_id: str
    target: Target = field(repr=False)


def address(credentials: Mapping[str, Any], amqp_port: int | None = None) -> NoticeAddress:
    """Whom to tell about the user endpoint that `credentials` (an `amqp_creds` object) are for.

    Raises:
        QueueInfoError: the credentials do not say.
    """
    info = credentials.get("heartbeat_queue_info")
    return NoticeAddress(read_endpoint_id(credentials), read_target(info, "heartbeat_queue_info", amqp_port))


@dataclass(frozen=True)
class Notices:
    """Sends notices. amqp_port: of config.yaml; when set, it replaces the port of each URL."""

    amqp_port: int | None = None
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE), repr=False)

    async def send(self, credentials: Mapping[str, Any], text: str, request_id: str) -> bool:
        """Publishes the notice for the user endpoint that `credentials` (an `amqp_creds` object) are for.

        Returns True once the broker has confirmed it, False when it had to be given up.
        """
        try:
            whom = address(credentials, self.amqp_port)
        except QueueInfoError as e:
            log.warning("[%s] failure notice not sent, the command does not say where to: %s", request_id, e)
            return False
        async with self._places:
            return await _deliver(whom, text, request_id)

    async def send_again(self, credentials: Mapping[str, Any], text: str) -> bool:
        """Tries once to publish one that had to be given up, without another word in the log; whether that is done."""
        try:
            whom = address(credentials, self.amqp_port)
            async with self._places:
                await within(ATTEMPT_TIMEOUT, publish_failure_notice(whom.target, whom.endpoint_id, text))
        except Exception as e:  # noqa: BLE001 - as in _deliver
            log.debug("failure notice not sent yet: %s", e)
            return False
        return True


async def _deliver(whom: NoticeAddress, text: str, request_id: str) -> bool:
    for wait, _ in zip(backoff.delays(), range(ATTEMPTS), strict=False):
        try:
            await within(ATTEMPT_TIMEOUT, publish_failure_notice(whom.target, whom.endpoint_id, text))
        except AccessRefused as e:
            log.error("[%s] failure notice not sent: %s", request_id, e)
            return False
        except Exception as e:  # noqa: BLE001 - also credentials that no connection can be made of
            log.warning("[%s] failure notice not sent yet: %s; next attempt in %.1f s", request_id, e, wait)
            await asyncio.sleep(wait)
        else:
            return True
    log.error("[%s] failure notice not sent; it is tried again every few minutes", request_id)
    return False
