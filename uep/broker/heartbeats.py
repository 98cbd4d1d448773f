"""Gives signs of life: heartbeats to the service, and the process title.

`endpoint` makes one `Heartbeats`, gives it the heartbeat channel of each session, and calls `beat`. A heartbeat that
cannot be delivered is lost and logged, but for the first of a session: that one is the check-in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from uep.broker import status_report
from uep.config import EndpointConfig
from uep.engines.base import Engine
from uep.handover import HandOver
from wire.errors import BrokerError
from wire.failure_notice import failure_notice
from wire.publisher import Publisher
from wire.queues import Target
from wire.time_limit import within

log = logging.getLogger(__name__)

STATUS_TIME = 5.0
"""Seconds for the engine's figures; after that the last ones are sent again."""
CONFIRM_TIME = 5.0
"""Seconds for the broker's word on a heartbeat. A broker that is short of memory or disk reads no more of what is
published, and answers only when it has room again: idleness and the engine's health are looked at all the same."""


class Heartbeats:
    """Heartbeats of one endpoint.

    engine_runs: set once the engine's figures are worth asking for. preparing: what tasks wait for until then, if it is
    worth telling.
    """

    def __init__(self, handover: HandOver, config: EndpointConfig, engine: Engine) -> None:
        self.engine_runs = False
        self.preparing = ""
        self._endpoint_id = handover.endpoint_id
        self._period = config.heartbeat_period
        self._facts = status_report.facts(config.raw, handover.facts)
        self._figures = _Figures(engine)
        self._channel: tuple[Publisher, Target] | None = None

    async def check_in(self, publisher: Publisher, target: Target) -> None:
        """Sends the first heartbeat of a session on its channel, and has the following ones sent there.

        Raises:
            BrokerError: the broker has not confirmed the heartbeat.
        """
        await publisher.publish(target, await self._heartbeat(active=True))
        self._channel = (publisher, target)

    def detach(self) -> None:
        """Ends the session: nothing is sent until the next `check_in`."""
        self._channel = None

    async def beat(self, *, active: bool = True) -> None:
        """Sends a heartbeat; the last one with `active` False. Never raises."""
        await self._publish(await self._heartbeat(active=active))

    async def engine_figures(self, *, newest: bool) -> Mapping[str, Any]:
        """The engine's figures: the newest, or those of the last heartbeat. Never raises."""
        return await self._figures.newest() if newest and self.engine_runs else self._figures.last

    async def start_failed(self, text: str) -> None:
        """Sends the notice that fails the waiting tasks with `text`. Never raises."""
        await self._publish(failure_notice(self._endpoint_id, text))

    async def _heartbeat(self, *, active: bool) -> bytes:
        figures = await self._figures.newest() if self.engine_runs else self._figures.last
        facts = {**self._facts, "preparing": self.preparing} if self.preparing else self._facts
        return status_report.heartbeat(self._endpoint_id, figures, facts, self._period, active=active)

    async def _publish(self, body: bytes) -> None:
        if self._channel is None:
            return
        publisher, target = self._channel
        try:
            await within(CONFIRM_TIME, publisher.publish(target, body))
        except asyncio.TimeoutError:
            log.warning("heartbeat not confirmed within %g s; is the broker short of memory or disk?", CONFIRM_TIME)
        except BrokerError as e:
            log.warning("heartbeat not delivered: %s", e)


class _Figures:
    """The engine's figures, asked for in a thread of their own: an engine may be slow, or hang.

    Not in the loop's own threads: those are waited for at the end. While one question has no answer, no other is asked.
    """

    def __init__(self, engine: Engine) -> None:
        self.last: Mapping[str, Any] = engine.status()
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "figures")
        self._thread.submit(int)  # starts it now: later a task may have used up what processes and threads there may be
        self._asked: asyncio.Future[dict[str, Any]] | None = None

    async def newest(self) -> Mapping[str, Any]:
        """Asks for the figures; returns the last ones when the engine does not answer in STATUS_TIME. Never raises."""
        asked = self._asked or asyncio.get_running_loop().run_in_executor(self._thread, self._engine.status)
        self._asked = asked
        await asyncio.wait((asked,), timeout=STATUS_TIME)
        if not asked.done():
            log.warning("no figures from the engine within %g s", STATUS_TIME)
            return self.last
        self._asked = None
        try:
            self.last = asked.result()
        except Exception as e:  # noqa: BLE001 - figures are not worth an endpoint
            log.warning("no figures from the engine: %r", e)
        return self.last


def set_title(name: str, state: str = "") -> None:
    """Sets what `ps` shows: `state` is why nothing runs."""
    import setproctitle  # 15 ms at its first call: not before check-in

    setproctitle.setproctitle(f"{f'[{state}] ' if state else ''}mep-uep {name}")
