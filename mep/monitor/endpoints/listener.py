"""Who is told what happens to user endpoints: the interface between the table and the rest of the monitor."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Protocol

from mep.monitor.endpoints.user_endpoint import ExitReport, UserEndpoint


class Listener(Protocol):
    """Told by `table`, in the event loop: `requests.endpoint_events`. Nothing here may wait."""

    async def held(self, endpoint: UserEndpoint) -> None:
        """Its process exists, and waits at the gate. Raises Refused to end the launch."""

    def checked_in(self, endpoint: UserEndpoint) -> None:
        """It has sent its first heartbeat."""

    def working(self, endpoint: UserEndpoint) -> None:
        """It has delivered its first result."""

    def task_records(self, endpoint: UserEndpoint, records: list[bytes]) -> Coroutine[None, None, str | None]:
        """What it says of its tasks. Once that is on record None, or why it may not go on, for its user and the admin:
        it is killed."""

    def exited(self, endpoint: UserEndpoint, report: ExitReport) -> None:
        """It has ended. Told once for each, whatever else follows."""

    def died(self, endpoint: UserEndpoint, report: ExitReport) -> None:
        """It has ended, and its user has to be told."""

    def revive(self, endpoint: UserEndpoint) -> None:
        """It has ended, and is to be started again by its newest command."""
