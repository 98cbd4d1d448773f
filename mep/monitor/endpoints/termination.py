"""Ends processes of user endpoints, with all that they have started, in the background of the event loop.

`table` says when. What belongs together is known to `containment`: a scope of systemd, or a tree of processes.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Coroutine
from pathlib import Path

from mep.monitor.background import Background
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.endpoints import record
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes.pidfd import send_signal

log = logging.getLogger(__name__)


class Termination:
    """Of the user endpoints of one profile. Everything is harmless when there is nothing left to end."""

    def __init__(self, containment: Containment) -> None:
        self._containment = containment
        self._background = Background()

    def ask(self, endpoint: UserEndpoint) -> None:
        """Asks it to stop."""
        if endpoint.pidfd is not None:
            send_signal(endpoint.pidfd, signal.SIGTERM)

    def kill(self, endpoint: UserEndpoint) -> None:
        """Kills it, and whatever it has started. That first: who started what can be told only while both are there."""

        async def kill() -> None:
            try:
                await self._containment.kill(endpoint.process, endpoint.scope, endpoint.audit_session)
            finally:
                if endpoint.pidfd is not None:
                    send_signal(endpoint.pidfd, signal.SIGKILL)

        self._start(kill())

    def undo(self, endpoint: UserEndpoint) -> None:
        """Kills one whose launch has failed or was not finished; its pidfd may be closed afterwards."""
        self._start(self._containment.kill(endpoint.process, endpoint.scope, endpoint.audit_session))
        if endpoint.pidfd is not None:
            send_signal(endpoint.pidfd, signal.SIGKILL)

    def clear(self, endpoint: UserEndpoint) -> None:
        """Ends what one that has ended itself has left."""
        self._start(self._containment.stop(endpoint.process, endpoint.scope, endpoint.audit_session))

    async def finish(self, timeout: float) -> None:
        """Waits until all this is done, at most `timeout` seconds."""
        await self._background.finish(timeout)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        async def logged() -> None:
            try:
                await work
            except ContainmentError as e:
                log.error("something that a user endpoint has started may have outlived it: %s", e)

        self._background.start(logged())


def ask_on_record(folder: Path) -> None:
    """Asks the process to stop that is on record in a folder which cannot be adopted, if that much can be read."""
    try:
        pidfd = record.open_process(folder)
    except record.RecordError:
        return  # whose process it is cannot be known, so it is left alone
    if pidfd is not None:
        send_signal(pidfd, signal.SIGTERM)
        os.close(pidfd)
