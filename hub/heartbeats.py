"""Status reports of managers and user endpoints: who is alive, who could not start, for whom a start is due again."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass

from sqlalchemy import BindParameter, Connection, bindparam, select, update

from hub import stopping
from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.commands import Commands
from hub.failed_starts import FailedStarts
from hub.store import tables
from hub.store.store import Store, storable
from wire import messages
from wire.consumer import Delivery
from wire.messages import StatusReport

log = logging.getLogger(__name__)

LONGEST_PERIOD = 86400
"""Seconds; a longer heartbeat period is not believed."""
MOST_BYTES = 2**20
"""Of one report: what a manager or user endpoint says of itself has some hundreds."""
LONGEST_ERROR = 16_000
"""Characters of why an endpoint could not start: each task that waits for it is answered with them."""

_WHICH: BindParameter[str] = bindparam("which")
_MANAGER_SEEN = update(tables.endpoint).where(tables.endpoint.c.id == _WHICH)
_USER_ENDPOINT_SEEN = update(tables.user_endpoint).where(tables.user_endpoint.c.id == _WHICH)
_KNOWN = select(
    tables.user_endpoint.c.manager,
    (tables.user_endpoint.c.stop_asked_at > tables.user_endpoint.c.commanded_at).label("unwanted"),
).where(tables.user_endpoint.c.id == _WHICH)
_START = update(tables.start).where(tables.start.c.user_endpoint == _WHICH, tables.start.c.ended_at.is_(None))
_FIRST_HEARTBEAT = _START.where(tables.start.c.first_heartbeat_at.is_(None))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a report was about: the manager, and its user endpoint unless the report is the manager's own.

    unwanted: its user has stopped that user endpoint, and not submitted since.
    """

    manager: str
    user_endpoint: str | None
    unwanted: bool = False


class Heartbeats:
    """Handles the heartbeat queue."""

    def __init__(
        self, store: Store, passwords: Passwords, commands: Commands, failed_starts: FailedStarts, broker: Broker
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._commands = commands
        self._failed_starts = failed_starts
        self._broker = broker

    async def on_reports(self, batch: list[Delivery]) -> None:
        """Handles each report; returns once all that follows from them is done."""
        reports = [report for delivery in batch if (report := _read(delivery)) is not None]
        now = time.time()
        noted = await self._store.write(lambda db: [self._note(db, report, now) for report in reports])
        for report, seen in zip(reports, noted, strict=True):
            await self._follow_up(report, seen)

    async def _follow_up(self, report: StatusReport, seen: _Seen | None) -> None:
        error = _error(report)
        if seen is None:
            log.warning("Dropped a status report for %s: not known here", report.endpoint_id)
        elif seen.user_endpoint is None:
            if _period(report) > 0:
                await self._commands.revive(seen.manager)
        elif error is not None:
            await self._failed_starts.fail(seen.user_endpoint, error)
        elif report.global_state.get("active") is False:
            self._commands.revive_soon(seen.manager)
        elif seen.unwanted and _period(report) > 0 and stopping.knows(report.global_state):
            await stopping.ask(self._broker, seen.user_endpoint)

    def _note(self, db: Connection, report: StatusReport, now: float) -> _Seen | None:
        endpoint, state = report.endpoint_id, json.dumps(dict(report.global_state))
        seen = {"which": endpoint, "heartbeat_at": now, "heartbeat_period": _period(report), "report": state}
        if db.execute(_MANAGER_SEEN, seen).rowcount:
            self._passwords.renew(db, topology.manager_account(endpoint), now)
            return _Seen(endpoint, None)
        if not db.execute(_USER_ENDPOINT_SEEN, seen).rowcount:
            return None
        known = db.execute(_KNOWN, {"which": endpoint}).one()
        _note_start(db, report, now)
        self._passwords.renew(db, topology.user_endpoint_account(endpoint), now)
        return _Seen(known.manager, endpoint, bool(known.unwanted))


def _note_start(db: Connection, report: StatusReport, now: float) -> None:
    endpoint, error = report.endpoint_id, _error(report)
    if error is not None or report.global_state.get("active") is False:
        db.execute(_START, {"which": endpoint, "ended_at": now, "error": error})
    else:
        db.execute(_FIRST_HEARTBEAT, {"which": endpoint, "first_heartbeat_at": now})


def _error(report: StatusReport) -> str | None:
    """Returns the text of a failed start."""
    error = report.global_state.get("error")
    if error is None:
        return None
    return storable(str(error)[:LONGEST_ERROR])


def _period(report: StatusReport) -> float:
    """Returns the seconds until the next report; 0 when none is due: the endpoint stops, failed, or talks nonsense."""
    period = report.global_state.get("heartbeat_period")
    if report.global_state.get("active") is False or _error(report) is not None:
        return 0.0
    return float(period) if isinstance(period, int | float) and 0 < period <= LONGEST_PERIOD else 0.0


def _read(delivery: Delivery) -> StatusReport | None:
    sender = topology.sender(delivery.routing_key)
    if len(delivery.body) > MOST_BYTES:
        log.warning("Dropped a message from endpoint %s to the heartbeat queue: %d bytes", sender, len(delivery.body))
        return None
    try:
        message = messages.unpack(delivery.body)
    except messages.MessageError as e:
        log.warning("Dropped a message from endpoint %s to the heartbeat queue: %s", sender, e)
        return None
    if not isinstance(message, StatusReport) or message.endpoint_id != sender:
        log.warning("Dropped a message from endpoint %s: not a status report of its own", sender)
        return None
    return message
