"""Answers that could not be told, because the broker was away for longer than a notice is tried: told later.

`pipeline` hands them in, one for each user endpoint. An answer is of no use any more when a start command for the same
one comes, which gets its own, or when one runs: it answers what another has left.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import logging
from collections.abc import Awaitable, Callable

from mep.monitor.endpoints.kept import LONGEST
from mep.processes.sealed_file import SealedFile
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

FIRST_PAUSE = 10.0
LONGEST_PAUSE = 300.0
"""Seconds between two attempts; each pause is twice as long as the one before, up to the longest."""


class Untold:
    """tell: tries once more to tell an answer; whether that is over."""

    def __init__(self, tell: Callable[[Refusal, StartEndpoint], Awaitable[bool]]) -> None:
        self._tell = tell
        self._trying: dict[str, asyncio.Task[None]] = {}

    def keep(self, refusal: Refusal, command: StartEndpoint) -> None:
        """Tells it as soon as that can be done, in the background. It takes the place of an earlier one."""
        self.drop(command.name)
        credentials = command.credentials
        try:
            own = fcntl.fcntl(credentials.file.descriptor, fcntl.F_DUPFD_CLOEXEC, 3)  # the caller closes its own
        except OSError as e:
            log.error("[%s] failure notice given up: %s", command.request_id, e)
            return
        credentials = dataclasses.replace(credentials, file=SealedFile(own))
        command = dataclasses.replace(command, credentials=credentials)
        task = asyncio.get_running_loop().create_task(self._try(refusal, command))
        self._trying[command.name] = task
        task.add_done_callback(lambda done: self._forget(command.name, done))

    def drop(self, name: str) -> None:
        """There is another answer for this one, or will be."""
        task = self._trying.pop(name, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Gives up: what outlives this manager on disk is for the next one."""
        trying = list(self._trying.values())
        for task in trying:
            task.cancel()
        await asyncio.gather(*trying, return_exceptions=True)

    async def _try(self, refusal: Refusal, command: StartEndpoint) -> None:
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        end = loop.time() + LONGEST
        while loop.time() < end:
            await asyncio.sleep(pause)
            if await self._tell(refusal, command):
                log.info("[%s] the failure notice has been sent after all, or is not needed", command.request_id)
                return
            pause = min(LONGEST_PAUSE, 2 * pause)
        log.error("[%s] failure notice given up after %g days", command.request_id, LONGEST / 86400)

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._trying.get(name) is task:
            del self._trying[name]
