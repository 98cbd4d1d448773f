"""The launch of one user endpoint: spawned, held until it is contained and on record, or ended again. For `table`."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from mep.monitor.containment import containment, limits
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.endpoints import exits
from mep.monitor.endpoints.lifecycle import State
from mep.monitor.endpoints.spawn import Place, spawn
from mep.monitor.endpoints.termination import Termination
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes.process import audit_session_of
from mep.profile.config import ManagerConfig
from mep.request.launch_plan import LaunchPlan
from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

_UNCONTAINED = "This endpoint could not set the limits for your processes; please tell its administrators."


class Launcher:
    """Of one profile. held: called with each new one that is contained and waits; Refused ends its launch."""

    def __init__(
        self, containment: Containment, termination: Termination, held: Callable[[UserEndpoint], Awaitable[None]]
    ) -> None:
        self._containment = containment
        self._termination = termination
        self._held = held

    async def launch(
        self, plan: LaunchPlan, command: StartEndpoint, folder: Path, config: ManagerConfig, place: Place
    ) -> UserEndpoint:
        """Starts a user endpoint, with `folder` for its record; returns once its program has been executed.

        place: that this start holds.

        Raises:
            Refused: stage `launch`, with the step that failed; stage `containment`; or what `held` raises. Nothing is
                left behind.
        """
        state = State.STARTING if exits.tells(config) else State.RUNNING
        rlimits = limits.rlimits(config.resources) if not containment.available() else {}
        begun: list[UserEndpoint] = []

        async def hold(endpoint: UserEndpoint) -> None:
            begun.append(endpoint)
            await self._hold(endpoint, config)

        try:
            return await spawn(plan, command, folder, state, rlimits, hold, place)
        except BaseException:
            for failed in begun:  # it may have been executed already
                self._termination.undo(failed)
            raise

    async def _hold(self, endpoint: UserEndpoint, config: ManagerConfig) -> None:
        """What has to be before its program may be executed. Limits that the profile asks for are not optional."""
        endpoint.audit_session = _own_audit_session(endpoint.pid)
        endpoint.scope = self._containment.scope(endpoint.name, endpoint.pid)  # also if what follows succeeds half-way
        try:
            await self._containment.contain(endpoint.pid, endpoint.name, endpoint.account.uid, config.resources)
        except ContainmentError as e:
            if config.resources or config.require_scope:
                reason = f"{endpoint.name} of account {endpoint.account.name!r}: {e}"
                raise Refused("containment", reason, _UNCONTAINED) from None
            log.warning("%s has no scope of its own: %s", endpoint.name, e)
        await self._held(endpoint)


def _own_audit_session(pid: int) -> int | None:
    """The audit session of a child; None when it is the manager's, who has been started by hand, and so of others."""
    session = audit_session_of(pid)
    return None if session == audit_session_of(os.getpid()) else session
