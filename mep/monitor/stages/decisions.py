"""Where the monitor's decisions are put on record: the audit trail, the log, and notices to users.

`pipeline` and `endpoint_events` decide. A refusal is logged, audited and told to its user here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from mep.monitor.audit import AuditTrail, Line
from mep.monitor.audit_file import AuditError
from mep.monitor.stages.requester_lines import IN_FULL, RequesterLines
from mep.request.credentials import Credentials
from mep.request.refusal import Refusal, Refused

log = logging.getLogger(__name__)


class Notices(Protocol):
    """Who tells users that a start failed: `worker_process`."""

    async def send(self, credentials: Credentials, text: str, request_id: str) -> bool:
        """Sends a notice with the credentials of its user endpoint; whether it was delivered."""

    async def send_again(self, credentials: Credentials, text: str) -> bool:
        """Tries once to send one that could not be delivered; whether it was delivered now."""

    def decided(self, event: str, request_id: str, facts: Mapping[str, object]) -> None:
        """Tells those who ask how the manager is of a decision."""


_OF_REQUESTS = frozenset({"received", "refused", "refreshed", "superseded"})
"""Events that a request can bring about that starts nothing."""


class Decisions:
    """configuration: gives the beginning of the digest of the profile in force, which every line of the trail has."""

    def __init__(self, audit: AuditTrail, notices: Notices, configuration: Callable[[], str]) -> None:
        self._audit = audit
        self._notices = notices
        self._configuration = configuration
        self._lines = RequesterLines(self._counted)

    async def decide(self, event: str, request_id: str, running: int | None = None, /, **facts: object) -> None:
        """Puts a decision on record, on the disk where that is required, before it is carried out.

        running: the pid of the user endpoint that runs already, so nothing is started by it.

        Raises:
            Refused: stage `audit`; it must be on record and cannot be.
        """
        try:
            await self._audit.confirm(self._record(event, request_id, facts, starts=running is None))
        except AuditError as e:
            reason = f"nothing starts that cannot be audited (high_assurance): {e}"
            user = "This endpoint cannot keep its audit trail at the moment, so it starts nothing. Please submit later."
            raise Refused("audit", reason, user) from None

    def note(self, event: str, request_id: str, **facts: object) -> Line:
        """Puts on record what has happened, and cannot be undone."""
        try:
            return self._record(event, request_id, facts)
        except AuditError as e:
            log.critical("[%s] %r is not on record: %s", request_id, event, e)
            return Line()

    async def refuse(self, refusal: Refusal, request_id: str, credentials: Credentials | None, **facts: object) -> bool:
        """Tells a refusal to all whom it concerns; its user by a notice, when there are credentials for that.

        facts: what is known of the request, for the audit trail. Returns whether a notice was delivered.
        """
        line = self.note("refused", request_id, stage=refusal.stage, reason=refusal.reason_for_admin, **facts)
        await self._audit.written(line)
        if credentials is None:
            return False
        return await self._notices.send(credentials, _text(refusal, request_id), request_id)

    async def tell_again(self, refusal: Refusal, request_id: str, credentials: Credentials) -> bool:
        """Tries once to tell its user a refusal that is on record already. Returns whether that was delivered."""
        return await self._notices.send_again(credentials, _text(refusal, request_id))

    def close(self) -> None:
        """Puts on record what has been counted and not told yet."""
        self._lines.close()

    def _record(self, event: str, request_id: str, facts: Mapping[str, object], *, starts: bool = True) -> Line:
        self._notices.decided(event, request_id, facts)
        of_request = event in _OF_REQUESTS or not starts
        if not of_request or self._audit.trouble() or self._in_full(event, request_id, facts):
            return self._audit.record(event, request_id, **{"configuration": self._configuration(), **facts})
        return Line()

    def _in_full(self, event: str, request_id: str, facts: Mapping[str, object]) -> bool:
        what = f"{event} at stage {facts['stage']}" if "stage" in facts else event
        return self._lines.in_full(str(facts.get("identity", "")), request_id, what)

    def _counted(self, requester: str, request_id: str, lines: Mapping[str, int]) -> None:
        reason = f"{sum(lines.values())} more lines of this requester, who has had {IN_FULL} in full within an hour"
        self.note("counted", request_id, identity=requester or None, reason=reason, lines=lines)


def _text(refusal: Refusal, request_id: str) -> str:
    return f"{refusal.reason_for_user} (request {request_id})"
