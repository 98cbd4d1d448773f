"""Forgets what is over: rows that nobody needs any more, so that the database does not grow for ever."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time

from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.outcomes import Outcomes
from hub.store import Store
from wire.errors import BrokerError

log = logging.getLogger(__name__)

KEEP = topology.TASK_QUEUE_LIFE
"""Seconds for which the end of a task is kept, and a user endpoint of which nothing is heard."""
LOST = "ENDPOINT_LOST"
"""The error code of tasks for which no user endpoint came in that time."""
_EVERY = 3600.0


class Sweeper:
    """`run` it as a task."""

    def __init__(self, store: Store, passwords: Passwords, outcomes: Outcomes) -> None:
        self._store = store
        self._passwords = passwords
        self._outcomes = outcomes

    async def run(self) -> None:
        """Sweeps once an hour, and never returns."""
        while True:
            try:
                await self.sweep()
            except (sqlite3.Error, BrokerError) as e:
                log.warning("Not all that is old could be removed, next attempt in an hour: %s", e)
            await asyncio.sleep(_EVERY)

    async def sweep(self) -> None:
        """Removes what is over, and ends the tasks that nobody will run.

        Raises:
            sqlite3.Error: the database cannot be written.
            BrokerError: the ends of tasks are stored, but not forwarded yet.
        """
        await self._store.write(self._forget)
        await self._fail_lost()

    def _forget(self, db: sqlite3.Connection) -> None:
        now = time.time()
        old = now - KEEP
        self._passwords.forget_old(db, now)
        db.execute("DELETE FROM token WHERE expires < ?", (now,))
        db.execute("DELETE FROM task WHERE ended_at < ?", (old,))
        db.execute("DELETE FROM task_group WHERE NOT EXISTS (SELECT 1 FROM task WHERE task_group = task_group.id)")
        db.execute("DELETE FROM start WHERE ended_at < ?", (old,))
        db.execute(
            "DELETE FROM user_endpoint WHERE commanded_at < ? AND (heartbeat_at IS NULL OR heartbeat_at < ?)"
            " AND NOT EXISTS (SELECT 1 FROM task WHERE user_endpoint = user_endpoint.id)",
            (old, old),
        )
        db.execute("DELETE FROM start WHERE user_endpoint NOT IN (SELECT id FROM user_endpoint)")

    async def _fail_lost(self) -> None:
        """Ends the tasks of user endpoints that are not coming; the broker drops their queues unread at that time."""
        old = time.time() - KEEP
        lost = self._store.read(
            "SELECT id FROM user_endpoint AS u WHERE commanded_at < ? AND (heartbeat_at IS NULL OR heartbeat_at < ?)"
            " AND EXISTS (SELECT 1 FROM task WHERE user_endpoint = u.id AND ended_at IS NULL)",
            old,
            old,
        )
        for row in lost:
            text = f"The endpoint did not run this task within {KEEP // 86400} days. Submit it again."
            await self._outcomes.fail_waiting(row["id"], LOST, text)
