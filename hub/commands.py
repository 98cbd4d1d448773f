"""Start commands: told to the manager with every submission, and again while tasks wait for an endpoint that is gone.

The command is idempotent: to a manager whose user endpoint lives it only brings fresh credentials.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from hub import endpoints
from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.callers import Callers
from hub.clients import Client
from hub.config import BrokerConfig
from hub.store import tables
from hub.store.store import Store
from wire.errors import BrokerError, NotDelivered

log = logging.getLogger(__name__)

REPEAT_AFTER = 5.0
"""Seconds between two commands for one user endpoint that the hub sends on its own."""

_THIS = tables.user_endpoint.c.id == bindparam("which")
_BY_ID = select(tables.user_endpoint).where(_THIS)
_COMMANDED = update(tables.user_endpoint).where(_THIS)
_IF_NOT_TOLD = _COMMANDED.where(tables.user_endpoint.c.commanded_at < bindparam("earlier"))
_START = tables.start.c
_LAST_START = select(tables.start).where(_START.user_endpoint == bindparam("which")).order_by(_START.id.desc()).limit(1)
MOST_STARTS = 100
"""Starts of a user endpoint that are remembered: those of one that fails each time must not fill the database."""
_FORGET_OLDEST = delete(tables.start).where(
    _START.user_endpoint == bindparam("which"),
    _START.id
    <= select(_START.id)
    .where(_START.user_endpoint == bindparam("which"))
    .order_by(_START.id.desc())
    .offset(MOST_STARTS)
    .limit(1)
    .correlate(None)
    .scalar_subquery(),
)
_COMMANDED_AGAIN = update(tables.start).where(_START.id == bindparam("which")).values(commands=_START.commands + 1)


class Commands:
    """Writes down and sends start commands."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        passwords: Passwords,
        config: BrokerConfig,
        callers: Callers,
    ) -> None:
        self._store = store
        self._broker = broker
        self._passwords = passwords
        self._config = config
        self._callers = callers
        self._soon: set[asyncio.Task[None]] = set()

    def write_down(self, db: Connection, user_endpoint: str, now: float) -> str:
        """Notes the start, as part of a larger change of the store; returns a password for the command."""
        row = db.execute(_BY_ID, {"which": user_endpoint}).one()
        last = db.execute(_LAST_START, {"which": user_endpoint}).first()
        if (
            last is None
            or last.ended_at is not None
            or (last.first_heartbeat_at is not None and not endpoints.is_online(row))
        ):
            db.execute(insert(tables.start), {"user_endpoint": user_endpoint, "commanded_at": now})
            db.execute(_FORGET_OLDEST, {"which": user_endpoint})
        else:
            db.execute(_COMMANDED_AGAIN, {"which": last.id})
        db.execute(_COMMANDED, {"which": user_endpoint, "commanded_at": now})
        return self._passwords.give(db, topology.user_endpoint_account(user_endpoint))

    async def send(self, user_endpoint: str, password: str) -> None:
        """Publishes the command; a manager that has no queue (stopped, locked) gets it when it is back.

        Raises:
            ConnectionLost: not connected to RabbitMQ.
        """
        row = await self._store.one(_BY_ID, which=user_endpoint)
        client = await self._callers.get(row.client) if row else None
        if row is None or client is None:
            return
        target = topology.target(
            topology.command_queue(row.manager),
            "application/json",
            timestamp=int(time.time()),
            expiration=str(topology.COMMAND_LIFE * 1000),
        )
        try:
            await self._broker.send(target, json.dumps(self._command(row, client, password)).encode())
        except NotDelivered:
            log.info("Manager %s is not registered now; user endpoint %s waits", row.manager, user_endpoint)

    async def revive(self, manager: str) -> None:
        """Commands again each user endpoint of `manager` for which tasks wait in the broker and nobody reads them."""
        known = tables.user_endpoint.c
        waiting = select(known.id).where(
            known.manager == manager,
            known.commanded_at < time.time() - REPEAT_AFTER,
            exists().where(tables.task.c.user_endpoint == known.id, tables.WAITS),
        )
        await asyncio.gather(*(self._revive_one(row.id) for row in await self._store.read(waiting)))

    def revive_soon(self, manager: str) -> None:
        """Calls `revive` after REPEAT_AFTER: a user endpoint that says goodbye still reads its queue for a moment."""

        async def wait_and_revive() -> None:
            await asyncio.sleep(REPEAT_AFTER)
            try:
                await self.revive(manager)
            except (BrokerError, SQLAlchemyError) as e:
                log.info("Not looked after the user endpoints of %s until its next heartbeat: %s", manager, e)

        task = asyncio.ensure_future(wait_and_revive())
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def _revive_one(self, user_endpoint: str) -> None:
        messages, consumers = await self._broker.declare_queue(topology.task_queue(user_endpoint))
        if not messages or consumers:
            return
        log.info("Tasks wait for user endpoint %s, which is gone: commanding its start again", user_endpoint)
        password = await self._store.write(lambda db: self._write_down_again(db, user_endpoint, time.time()))
        if password is not None:
            await self.send(user_endpoint, password)

    def _write_down_again(self, db: Connection, user_endpoint: str, now: float) -> str | None:
        """Notes the start; None when another hub has commanded it, or has forgotten the user endpoint."""
        told = {"which": user_endpoint, "commanded_at": now, "earlier": now - REPEAT_AFTER}
        return self.write_down(db, user_endpoint, now) if db.execute(_IF_NOT_TOLD, told).rowcount else None

    def _command(self, row: Row[Any], client: Client, password: str) -> dict[str, Any]:
        user_endpoint = row.id
        url = self._config.url_for(topology.user_endpoint_account(user_endpoint), password)
        return {
            "globus_username": client.identity.username,
            "globus_effective_identity": client.identity.id,
            "globus_identity_set": [identity.set_entry() for identity in client.identities],
            "command": "cmd_start_endpoint",
            "kwargs": {
                "name": f"uep.{row.manager}.{user_endpoint}",
                "user_opts": json.loads(row.user_opts),
                "user_runtime": json.loads(row.user_runtime),
                "amqp_creds": {
                    "endpoint_id": user_endpoint,
                    "task_queue_info": topology.source_info(url, topology.TASKS, topology.task_queue(user_endpoint)),
                    "result_queue_info": topology.target_info(url, topology.RESULTS, user_endpoint),
                    "heartbeat_queue_info": topology.target_info(url, topology.HEARTBEATS, user_endpoint),
                },
            },
        }
