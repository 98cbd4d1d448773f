"""The endpoint's signs of life: heartbeats to the service, and what the process title says.

`endpoint` makes one `Heartbeats`, gives it the heartbeat channel of each session, and calls `beat`. A heartbeat that
cannot be delivered is lost and logged, but for the first of a session: that one is the check-in.
"""

from __future__ import annotations

import asyncio
import logging

from uep.broker import status_report
from uep.config import EndpointConfig
from uep.engines.base import Engine
from uep.handover import HandOver
from wire.amqp import BrokerError, Publisher
from wire.queues import Target

log = logging.getLogger(__name__)

STATUS_TIME = 5.0
"""Seconds for the engine's figures; after that the last ones are sent again."""
CONFIRM_TIME = 5.0
"""Seconds for the broker's word on a heartbeat. One that is short of memory or disk reads no more of what is published,
and answers only when it has room again: idleness and the engine's health are looked at all the same."""


class Heartbeats:
    """Heartbeats of one endpoint. `engine_runs` is set once the engine's figures are worth asking for."""

    def __init__(self, handover: HandOver, config: EndpointConfig, engine: Engine) -> None:
        self.engine_runs = False
        self._endpoint_id = handover.endpoint_id
        self._period = config.heartbeat_period
        self._engine = engine
        self._figures = engine.status()
        self._facts = status_report.facts(config.raw, handover.facts)
        self._channel: tuple[Publisher, Target] | None = None

    async def check_in(self, publisher: Publisher, target: Target) -> None:
        """The first heartbeat of a session, on its channel. Raises BrokerError when it is not confirmed."""
        await publisher.publish(target, await self._heartbeat(active=True))
        self._channel = (publisher, target)

    def detach(self) -> None:
        """The session is over; nothing is sent until the next `check_in`."""
        self._channel = None

    async def beat(self, *, active: bool = True) -> None:
        """A heartbeat; the last one with `active` False. Never raises."""
        await self._publish(await self._heartbeat(active=active))

    async def cannot_start(self, text: str) -> None:
        """The notice that fails the waiting tasks with `text`. Never raises."""
        await self._publish(status_report.cannot_start(self._endpoint_id, text))

    async def _heartbeat(self, *, active: bool) -> bytes:
        if self.engine_runs:
            try:
                self._figures = await asyncio.wait_for(asyncio.to_thread(self._engine.status), STATUS_TIME)
            except Exception as e:  # noqa: BLE001 - figures are not worth an endpoint
                log.warning("no figures from the engine: %r", e)
        return status_report.heartbeat(self._endpoint_id, self._figures, self._facts, self._period, active=active)

    async def _publish(self, body: bytes) -> None:
        if self._channel is None:
            return
        publisher, target = self._channel
        try:
            await asyncio.wait_for(publisher.publish(target, body), CONFIRM_TIME)
        except asyncio.TimeoutError:
            log.warning("heartbeat not confirmed within %g s; is the broker short of memory or disk?", CONFIRM_TIME)
        except BrokerError as e:
            log.warning("heartbeat not delivered: %s", e)


def set_title(name: str, idle_for: float | None = None) -> None:
    """What `ps` shows; `idle_for` are the seconds to a shut-down that is in sight."""
    import setproctitle  # 15 ms at its first call: not before check-in

    idle = "" if idle_for is None else f"[idle; shut down in {idle_for:,g} s] "
    setproctitle.setproctitle(f"{idle}mep-uep {name}")
