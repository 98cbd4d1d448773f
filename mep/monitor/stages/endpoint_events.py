"""What follows from what happens to user endpoints: lines of the audit trail, notices to users, revivals.

`endpoints.table` tells; what is to be done is decided in `endpoints.lifecycle`. In the monitor.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Coroutine

from mep.monitor.audit import AuditTrail, Line
from mep.monitor.audit_file import AuditError
from mep.monitor.background import Background
from mep.monitor.endpoints.kept import KeptEndpoints
from mep.monitor.endpoints.user_endpoint import ExitReport, UserEndpoint
from mep.monitor.stages.audit_budget import AuditBudget
from mep.monitor.stages.breaker import Breaker
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.orders import Orders
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 35.0
"""Seconds that revivals and notices under way have when the manager stops; an exec may take 30 of them."""

_STOPPING = Refusal(
    "manager",
    "stopped just after a start command came for it, and the manager is being stopped",
    "This endpoint is being stopped; please submit again later.",
)


class EndpointEvents:
    """The listener of the table.

    revive: brings a start command to its end once more, as `Pipeline.revive` does.
    tell: tells the user of a user endpoint that has died, as `Pipeline.tell` does.
    """

    def __init__(
        self,
        decisions: Decisions,
        audit: AuditTrail,
        budget: AuditBudget,
        breaker: Breaker,
        revive: Callable[[StartEndpoint], Coroutine[None, None, None]],
        tell: Callable[[Refusal, StartEndpoint], Coroutine[None, None, None]],
        kept: KeptEndpoints,
        orders: Orders,
    ) -> None:
        self._decisions = decisions
        self._audit = audit
        self._budget = budget
        self._breaker = breaker
        self._revive = revive
        self._tell = tell
        self._kept = kept
        self._orders = orders
        self._background = Background()
        self._closing = False

    def adopted(self, endpoint: UserEndpoint) -> None:
        """A user endpoint that an earlier manager started is ours now."""
        self._kept.keep(endpoint)
        self._decisions.note("adopted", endpoint.command.request_id, **endpoint.facts())

    async def held(self, endpoint: UserEndpoint) -> None:
        """Its process exists, and waits.

        Raises:
            Refused: that cannot be put on record, and must be; or an order of an admin has come meanwhile.
        """
        await self._decisions.decide("starting", endpoint.command.request_id, **endpoint.facts(), scope=endpoint.scope)
        self._orders.check_start(endpoint.command, endpoint.account)

    def checked_in(self, endpoint: UserEndpoint) -> None:
        """It has sent its first heartbeat."""
        request_id, seconds = endpoint.command.request_id, round(endpoint.checked_in_after or 0.0, 3)
        self._decisions.note("checked in", request_id, endpoint=endpoint.name, pid=endpoint.pid, seconds=seconds)

    def working(self, endpoint: UserEndpoint) -> None:
        """It has delivered its first result."""
        self._breaker.did_work(endpoint.account.uid)

    def task_records(self, endpoint: UserEndpoint, records: list[bytes]) -> Coroutine[None, None, str | None]:
        """Puts on record what it says of its tasks. Later: why it may not go on, since that cannot be, or may not."""
        account = endpoint.account
        lines = []
        exceeded, why = self._budget.exceeded(account.uid), ""
        try:
            for record in records if exceeded is None else ():
                who, uep = endpoint.command.request_id, endpoint.command.endpoint_id
                lines.append(self._audit.task(who, endpoint.name, account, record, uep=uep, pid=endpoint.pid))
        except AuditError as e:
            why = str(e)
        self._budget.spend(account.uid, sum(line.size for line in lines))
        return self._recorded(endpoint, lines, why)

    async def _recorded(self, endpoint: UserEndpoint, lines: list[Line], why: str) -> str | None:
        try:
            await self._audit.confirm_tasks(lines)
        except AuditError as e:
            why = why or str(e)
        if why:
            log.critical("%s is ended: its tasks cannot be audited: %s", endpoint.name, why)
            return "the audit trail, without which no task may run here, cannot be written"
        exceeded = self._budget.exceeded(endpoint.account.uid)
        if exceeded is not None:
            log.error("%s of account %r is ended: %s", endpoint.name, endpoint.account.name, exceeded)
        return exceeded

    def exited(self, endpoint: UserEndpoint, report: ExitReport) -> None:
        """It has ended."""
        if report.clean and (b"stopped" in endpoint.said or not endpoint.said):  # or it has results that were not sent
            self._kept.forget(endpoint.name)
        self._decisions.note(
            "exited",
            endpoint.command.request_id,
            **endpoint.facts(),
            ending=report.ending,
            reason=endpoint.reason,
            detail=endpoint.detail,
            host=socket.gethostname(),
            seconds=round(report.seconds, 3),
            cpu_seconds=None if report.cpu_seconds is None else round(report.cpu_seconds, 3),
            peak_memory_kib=report.peak_memory,
        )

    def died(self, endpoint: UserEndpoint, report: ExitReport) -> None:
        """It has ended, and its user has to be told."""
        if report.useless and endpoint.refusal is None:
            self._breaker.died_early(endpoint.account.uid, report.ending)
        self._refuse(endpoint.refusal or _death(endpoint, report), endpoint.command)

    def revive(self, endpoint: UserEndpoint) -> None:
        """It has ended, and is to be started again by its newest command; not when it was killed, nor by a manager that
        is closing."""
        command = endpoint.command
        if endpoint.refusal is not None:
            self._refuse(endpoint.refusal, command)
            return
        if self._closing:
            self._refuse(_STOPPING, command)
            return
        name, request_id = endpoint.name, command.request_id
        log.info("[%s] %s ended just after a start command came for it; starting it again", request_id, name)
        self._background.start(self._revive(command))

    def begin_closing(self) -> None:
        """From now on nothing is started again."""
        self._closing = True

    async def close(self) -> None:
        """Waits for the revivals and notices that are under way, but not for ever."""
        await self._background.finish(CLOSE_TIMEOUT)

    def _refuse(self, refusal: Refusal, command: StartEndpoint) -> None:
        self._background.start(self._tell(refusal, command))


def _death(endpoint: UserEndpoint, report: ExitReport) -> Refusal:
    """A user endpoint that ended by itself and not cleanly, as a refusal of what was waiting for it."""
    when = "before its first heartbeat" if report.before_check_in else "unexpectedly"
    log_file = f"endpoint.log in the folder {endpoint.name} of your Globus Compute folder"
    ending = f"{report.ending}: {endpoint.reason}" if endpoint.reason else report.ending
    admin = f"{ending} ({endpoint.detail})" if endpoint.detail else ending
    return Refusal(
        "running",
        f"{endpoint.name} of account {endpoint.account.name!r} (pid {endpoint.pid}) on {socket.gethostname()} "
        f"ended {when}: {admin}",
        f"Your user endpoint ended {when} ({ending.rstrip('.')}). Its own words are in {log_file} on that system.",
    )
