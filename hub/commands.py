"""Start commands: told to the manager with every submission, and again while tasks wait for an endpoint that is gone.

The command is idempotent: to a manager whose user endpoint lives it only brings fresh credentials.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from hub import endpoints
from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.clients import Client
from hub.config import BrokerConfig
from hub.store import Store
from wire.errors import BrokerError, NotDelivered

log = logging.getLogger(__name__)

REPEAT_AFTER = 5.0
"""Seconds between two commands for one user endpoint that the hub sends on its own."""


class Commands:
    """Writes down and sends start commands."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        passwords: Passwords,
        config: BrokerConfig,
        clients: Mapping[str, Client],
    ) -> None:
        self._store = store
        self._broker = broker
        self._passwords = passwords
        self._config = config
        self._clients = clients
        self._soon: set[asyncio.Task[None]] = set()

    def write_down(self, db: sqlite3.Connection, user_endpoint: str, now: float) -> str:
        """Notes the start, as part of a larger change of the store; returns a password for the command."""
        row = db.execute("SELECT * FROM user_endpoint WHERE id = ?", (user_endpoint,)).fetchone()
        last = db.execute(
            "SELECT rowid, * FROM start WHERE user_endpoint = ? ORDER BY rowid DESC LIMIT 1", (user_endpoint,)
        ).fetchone()
        over = last is None or last["ended_at"] is not None
        if over or (last["first_heartbeat_at"] is not None and not endpoints.is_online(row)):
            db.execute("INSERT INTO start(user_endpoint, commanded_at) VALUES (?, ?)", (user_endpoint, now))
        else:
            db.execute("UPDATE start SET commands = commands + 1 WHERE rowid = ?", (last["rowid"],))
        db.execute("UPDATE user_endpoint SET commanded_at = ? WHERE id = ?", (now, user_endpoint))
        return self._passwords.give(db, topology.user_endpoint_account(user_endpoint))

    async def send(self, user_endpoint: str, password: str) -> None:
        """Publishes the command; a manager that has no queue (stopped, locked) gets it when it is back.

        Raises:
            ConnectionLost: not connected to RabbitMQ.
        """
        row = self._store.one("SELECT * FROM user_endpoint WHERE id = ?", user_endpoint)
        client = self._clients.get(row["client"]) if row else None
        if row is None or client is None:
            return
        target = topology.target(
            topology.command_queue(row["manager"]),
            "application/json",
            timestamp=int(time.time()),
            expiration=str(topology.COMMAND_LIFE * 1000),
        )
        try:
            await self._broker.send(target, json.dumps(self._command(row, client, password)).encode())
        except NotDelivered:
            log.info("Manager %s is not registered now; user endpoint %s waits", row["manager"], user_endpoint)

    async def revive(self, manager: str) -> None:
        """Commands again each user endpoint of `manager` for which tasks wait in the broker and nobody reads them."""
        waiting = self._store.read(
            "SELECT id FROM user_endpoint AS u WHERE manager = ? AND commanded_at < ?"
            " AND EXISTS (SELECT 1 FROM task WHERE user_endpoint = u.id AND ended_at IS NULL)",
            manager,
            time.time() - REPEAT_AFTER,
        )
        await asyncio.gather(*(self._revive_one(row["id"]) for row in waiting))

    def revive_soon(self, manager: str) -> None:
        """Calls `revive` after REPEAT_AFTER: a user endpoint that says goodbye still reads its queue for a moment."""

        async def wait_and_revive() -> None:
            await asyncio.sleep(REPEAT_AFTER)
            try:
                await self.revive(manager)
            except BrokerError as e:
                log.info("Not looked after the user endpoints of %s until its next heartbeat: %s", manager, e)

        task = asyncio.ensure_future(wait_and_revive())
        self._soon.add(task)
        task.add_done_callback(self._soon.discard)

    async def _revive_one(self, user_endpoint: str) -> None:
        messages, consumers = await self._broker.declare_queue(topology.task_queue(user_endpoint))
        if not messages or consumers:
            return
        log.info("Tasks wait for user endpoint %s, which is gone: commanding its start again", user_endpoint)
        password = await self._store.write(lambda db: self.write_down(db, user_endpoint, time.time()))
        await self.send(user_endpoint, password)

    def _command(self, row: sqlite3.Row, client: Client, password: str) -> dict[str, Any]:
        user_endpoint = row["id"]
        url = self._config.url_for(topology.user_endpoint_account(user_endpoint), password)
        return {
            "globus_username": client.identity.username,
            "globus_effective_identity": client.identity.id,
            "globus_identity_set": [identity.set_entry() for identity in client.identities],
            "command": "cmd_start_endpoint",
            "kwargs": {
                "name": f"uep.{row['manager']}.{user_endpoint}",
                "user_opts": json.loads(row["user_opts"]),
                "user_runtime": json.loads(row["user_runtime"]),
                "amqp_creds": {
                    "endpoint_id": user_endpoint,
                    "task_queue_info": topology.source_info(url, topology.TASKS, topology.task_queue(user_endpoint)),
                    "result_queue_info": topology.target_info(url, topology.RESULTS, user_endpoint),
                    "heartbeat_queue_info": topology.target_info(url, topology.HEARTBEATS, user_endpoint),
                },
            },
        }
