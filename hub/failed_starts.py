"""Fails the tasks of a user endpoint that could not start, or has died. `heartbeats` hands on such notices.

What is told as failed must not run afterwards, and a successor may start at any moment. So the tasks are failed while
the hub alone reads their queue and nobody submits to it; then what lies in the queue is dropped. When somebody reads
the queue already, that is the successor, who answers for all tasks: those that the dead one had taken are on disk. Or
it is the dead one's connection, which the broker still counts: then nobody reports, and the hub tries again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.outcomes import Outcomes
from hub.shared_lock import SharedLock
from hub.store import tables
from hub.store.store import Store
from wire.errors import BrokerError
from wire.printable import printable

log = logging.getLogger(__name__)

START_FAILED = "ENDPOINT_START_FAILED"
"""The error code of tasks whose endpoint could not start."""
AGAIN = 5.0
"""Seconds after which the queue is looked at again, when somebody reads it."""
_LONGEST_LOGGED = 1000


class FailedStarts:
    """submissions: shared by each submission to a user endpoint, from its rows in the store to its messages."""

    def __init__(self, store: Store, broker: Broker, outcomes: Outcomes, submissions: SharedLock) -> None:
        self._store = store
        self._broker = broker
        self._outcomes = outcomes
        self._submissions = submissions
        self._later: dict[str, asyncio.Task[None]] = {}
        """What waits for the end of a reader, by user endpoint."""

    async def fail(self, user_endpoint: str, text: str) -> None:
        """Fails with `text` what waits for the user endpoint; later, when its queue has a reader that never reports.

        Raises:
            BrokerError: no connection; nothing was failed, or not all of it was forwarded.
        """
        log.info("User endpoint %s could not start: %s", user_endpoint, printable(text, _LONGEST_LOGGED))
        told_at = time.time()
        if await self._fail(user_endpoint, text):
            return
        earlier = self._later.pop(user_endpoint, None)
        if earlier is not None:
            earlier.cancel()
        self._later[user_endpoint] = asyncio.ensure_future(self._fail_later(user_endpoint, text, told_at))

    async def _fail(self, user_endpoint: str, text: str) -> bool:
        """Fails what waits. False when somebody else reads the queue."""
        async with self._submissions.alone(user_endpoint):
            queue = topology.task_queue(user_endpoint)
            _, readers = await self._broker.declare_queue(queue)
            if readers:
                return False
            async with self._broker.sole_reader(queue) as alone:
                if alone:
                    await self._outcomes.fail_waiting(user_endpoint, START_FAILED, text)
        return alone

    async def _fail_later(self, user_endpoint: str, text: str, told_at: float) -> None:
        failed = False
        while not failed:
            await asyncio.sleep(AGAIN)
            if await self._reported_since(user_endpoint, told_at):
                break
            try:
                failed = await self._fail(user_endpoint, text)
            except (BrokerError, SQLAlchemyError) as e:
                log.info("Tasks of user endpoint %s are failed later: %s", user_endpoint, e)
        if self._later.get(user_endpoint) is asyncio.current_task():
            del self._later[user_endpoint]

    async def _reported_since(self, user_endpoint: str, then: float) -> bool:
        """Tells whether there is a successor, or no such user endpoint any more."""
        known = tables.user_endpoint.c
        row = await self._store.one(select(known.heartbeat_at).where(known.id == user_endpoint))
        return row is None or (row.heartbeat_at or 0.0) > then
