"""Forgets what is over: rows that nobody needs any more, so that the database does not grow for ever."""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from hub import consents
from hub.amqp import topology
from hub.amqp.passwords import Passwords
from hub.outcomes import Outcomes
from hub.store import tables
from hub.store.store import Store
from wire.errors import BrokerError

log = logging.getLogger(__name__)

KEEP = topology.TASK_QUEUE_LIFE
"""Seconds for which the end of a task is kept, and a user endpoint of which nothing is heard."""
MOST_TOKENS = 10_000
"""Of one client: who logs in for each call would fill the database in the two days that a token is valid."""
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
            except (SQLAlchemyError, BrokerError) as e:
                log.warning("Not all that is old could be removed, next attempt in an hour: %s", e)
            await asyncio.sleep(_EVERY)

    async def sweep(self) -> None:
        """Removes what is over, and ends the tasks that nobody will run.

        Raises:
            SQLAlchemyError: the database cannot be written.
            BrokerError: the ends of tasks are stored, but not forwarded yet.
        """
        await self._store.write(self._forget)
        await self._fail_lost()

    def _forget(self, db: Connection) -> None:
        now = time.time()
        old = now - KEEP
        self._passwords.forget_old(db, now)
        consents.forget_old(db, now)
        token, task, group, start, user_endpoint = (
            tables.token,
            tables.task,
            tables.task_group,
            tables.start,
            tables.user_endpoint,
        )
        for each in (token, tables.refresh_token, tables.code, tables.session):
            db.execute(delete(each).where(each.c.expires < now))
        newest = func.row_number().over(partition_by=token.c.client, order_by=token.c.expires.desc())
        ranked = select(token.c.hash, newest.label("place")).subquery()
        db.execute(delete(token).where(token.c.hash.in_(select(ranked.c.hash).where(ranked.c.place > MOST_TOKENS))))
        db.execute(delete(task).where(task.c.ended_at < old))
        _delete(db, group, ~exists().where(task.c.task_group == group.c.id))
        db.execute(delete(start).where(start.c.ended_at < old))
        _delete(db, user_endpoint, _silent_since(old), ~exists().where(task.c.user_endpoint == user_endpoint.c.id))
        db.execute(delete(start).where(~exists().where(user_endpoint.c.id == start.c.user_endpoint)))

    async def _fail_lost(self) -> None:
        """Ends the tasks of user endpoints that are not coming; the broker drops their queues unread at that time."""
        user_endpoint = tables.user_endpoint.c
        lost = select(user_endpoint.id).where(
            _silent_since(time.time() - KEEP),
            exists().where(tables.task.c.user_endpoint == user_endpoint.id, tables.WAITS),
        )
        for row in await self._store.read(lost):
            text = f"The endpoint did not run this task within {KEEP // 86400} days. Submit it again."
            await self._outcomes.fail_waiting(row.id, LOST, text)


def _delete(db: Connection, table: Table, *conditions: ColumnElement[bool]) -> None:
    """Deletes the rows that nobody is about to use: what another hub has changed meanwhile is looked at once more."""
    free = db.scalars(select(table.c.id).where(*conditions).with_for_update(skip_locked=True)).all()
    for first in range(0, len(free), 1000):
        db.execute(delete(table).where(table.c.id.in_(free[first : first + 1000]), *conditions))


def _silent_since(then: float) -> ColumnElement[bool]:
    """Makes the condition for user endpoints that were neither commanded nor heard of after `then`."""
    user_endpoint = tables.user_endpoint.c
    unheard = or_(user_endpoint.heartbeat_at.is_(None), user_endpoint.heartbeat_at < then)
    return and_(user_endpoint.commanded_at < then, unheard)
