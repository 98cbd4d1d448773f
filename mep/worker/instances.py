"""Looks whether another instance of the endpoint takes its commands, too: on another host, or with a copied profile.

The broker knows: it counts who consumes from the command queue. It is asked on a connection of its own, so that a
broker which does not answer such a question costs nothing else. Called by `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from mep.worker.probe import probe
from wire.errors import BrokerError
from wire.queues import Source

log = logging.getLogger(__name__)

FIRST = 5.0
"""Seconds from the start to the first look."""
PERIOD = 300.0
"""Seconds between two looks."""
AGAIN = 90.0
"""Seconds until the look that confirms another one: so long, at most, the broker counts a manager that was cut off."""


class Instances:
    """Who else takes the commands. others_known: is called when the number of others has changed."""

    def __init__(self, commands: Callable[[], Source], others_known: Callable[[int], None]) -> None:
        self._commands = commands
        self._others_known = others_known
        self._consuming = 0

    @contextlib.contextmanager
    def counting_us(self) -> Iterator[None]:
        """We consume meanwhile, and are one of those whom the broker counts."""
        self._consuming += 1
        try:
            yield
        finally:
            self._consuming -= 1

    async def watch(self) -> None:
        """Looks again and again."""
        told, pause = 0, FIRST
        while True:
            await asyncio.sleep(pause)
            others = await self._others()
            if others and not told and pause != AGAIN:
                pause = AGAIN
                continue
            pause = PERIOD
            if others is not None and others != told:
                told = others
                self._tell(others)

    async def _others(self) -> int | None:
        """How many there are; None when nobody knows."""
        before = self._consuming
        try:
            count = await probe(self._commands())
        except BrokerError as e:
            log.debug("nobody knows whether another instance takes commands: %s", e)
            return None
        return max(0, count - before) if before == self._consuming else None

    def _tell(self, others: int) -> None:
        if others:
            log.error("%d more take the commands of this endpoint: %s", others, REMEDY)
        else:
            log.info("no other instance takes the commands of this endpoint any more")
        self._others_known(others)


REMEDY = (
    "another instance of it runs, perhaps on another host or with a copy of this profile; stop all but one, as tasks go"
    " to either"
)
