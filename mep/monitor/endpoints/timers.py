"""Events of user endpoints that come with time, in the event loop. `table` sets them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mep.monitor.endpoints.lifecycle import Event
from mep.monitor.endpoints.user_endpoint import UserEndpoint


class Timers:
    """At most one for each user endpoint and event. `happens` is called with both when its time has come."""

    def __init__(self, happens: Callable[[UserEndpoint, Event], None]) -> None:
        self._happens = happens
        self._handles: dict[tuple[str, Event], asyncio.TimerHandle] = {}

    def set(self, endpoint: UserEndpoint, event: Event, at: float) -> None:
        """The event comes at that time (monotonic seconds), and not at the one that was set before."""
        self._cancel(endpoint, event)
        delay = max(0.0, at - time.monotonic())
        handle = asyncio.get_running_loop().call_later(delay, self._happens, endpoint, event)
        self._handles[endpoint.name, event] = handle

    def drop(self, endpoint: UserEndpoint) -> None:
        """Nothing comes any more."""
        for event in Event:
            self._cancel(endpoint, event)

    def _cancel(self, endpoint: UserEndpoint, event: Event) -> None:
        if handle := self._handles.pop((endpoint.name, event), None):
            handle.cancel()
