"""Stops a user endpoint as its user wants: what it has and what waits for it is over, and it is asked to end.

The wish holds until the user submits again. A user endpoint that was not there, or that its manager starts again for a
start command of the last seconds, is asked when it checks in (`hub.heartbeats`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from sqlalchemy import Row, select, update

from hub import endpoints
from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.clients import Client
from hub.outcomes import Outcomes
from hub.shared_lock import SharedLock
from hub.store import tables
from hub.store.store import Store
from hub.web import NotFound
from wire import stop_request
from wire.errors import NotDelivered

log = logging.getLogger(__name__)

STOPPED = "ENDPOINT_STOPPED"
"""The error code of tasks whose user endpoint its user has stopped."""
_TEXT = "You have stopped the user endpoint that this task was for. It may have run in part."
PATIENCE = 5.0
"""Seconds for user endpoints of a deleted endpoint to hear that they are to stop."""
_BETWEEN = 0.1
_PART = 50
_LIFE = 60
"""Seconds for which the broker keeps the message: whoever checks in later is asked then."""


class Stopper:
    """submissions: shared by each submission to a user endpoint, from its rows in the store to its messages."""

    def __init__(self, store: Store, broker: Broker, outcomes: Outcomes, submissions: SharedLock) -> None:
        self._store = store
        self._broker = broker
        self._outcomes = outcomes
        self._submissions = submissions

    async def stop(self, client: Client, user_endpoint: str) -> None:
        """Ends all its tasks, and asks it to stop if it runs and knows how.

        Raises:
            NotFound: there is none with this id, or it is not the client's.
            BrokerError: no connection; it is to be tried again.
        """
        known = tables.user_endpoint
        row = await self._store.one(select(known).where(known.c.id == user_endpoint))
        if row is None or not client.is_one_of(row.identity):
            raise NotFound("user endpoint", user_endpoint)
        queue = topology.task_queue(user_endpoint)
        async with self._submissions.alone(user_endpoint):
            await self._broker.declare_queue(queue)  # and not a channel lost when there is none
            await self._store.execute(
                update(known).where(known.c.id == user_endpoint).values(stop_asked_at=time.time())
            )
            await self._broker.purge_queue(queue)
            await self._outcomes.fail_waiting(user_endpoint, STOPPED, _TEXT)
            if _listens(row):
                await ask(self._broker, user_endpoint)
        log.info("User endpoint %s is stopped by its user", user_endpoint)


async def ask(broker: Broker, user_endpoint: str) -> None:
    """Sends the message that asks it to stop.

    Raises:
        ConnectionLost: no connection to the broker.
    """
    target = topology.target(
        topology.task_queue(user_endpoint),
        "application/octet-stream",
        headers=dict(stop_request.HEADERS),
        expiration=str(_LIFE * 1000),
    )
    try:
        await broker.send(target, b"")
    except NotDelivered:
        log.info("User endpoint %s has no queue any more", user_endpoint)


async def have_stopped(store: Store, broker: Broker, manager: str) -> None:
    """Asks all user endpoints of a manager that run and know how to stop, and waits a while until they take no more.

    Raises:
        ConnectionLost: no connection to the broker.
    """
    known = tables.user_endpoint.c
    columns = known.id, known.heartbeat_at, known.heartbeat_period, known.report
    reading = []
    async for rows in store.parts(select(*columns).where(known.manager == manager), known.id, most=_PART):
        for user_endpoint in [row.id for row in rows if _listens(row)]:
            queue = topology.task_queue(user_endpoint)
            await broker.declare_queue(queue)
            await broker.purge_queue(queue)
            await ask(broker, user_endpoint)
            reading.append(queue)
    until = time.monotonic() + PATIENCE
    while reading and time.monotonic() < until:
        reading = [queue for queue in reading if (await broker.declare_queue(queue))[1]]
        await asyncio.sleep(_BETWEEN if reading else 0)


def _listens(row: Row[Any]) -> bool:
    """Tells whether a user endpoint runs and knows how to stop."""
    return endpoints.is_online(row) and knows(json.loads(row.report or "{}"))


def knows(report: Any) -> bool:
    """Tells whether what has sent this report stops when it is asked to; others would take the message for a task."""
    return isinstance(report, dict) and report.get(stop_request.KNOWS) is True
