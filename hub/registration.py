"""Endpoints come and go: register, lock, delete. Each is a change of the store and of what is declared in RabbitMQ."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping
from typing import Any

from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.clients import Client
from hub.config import BrokerConfig
from hub.endpoints import Manager
from hub.limits import Limits
from hub.outcomes import Outcomes
from hub.store import Store
from hub.web import ApiError, Invalid, TooMany, field, uuid_field

METADATA = frozenset(
    {
        "endpoint_version",
        "python_version",
        "hostname",
        "local_user",
        "endpoint_config",
        "user_config_template",
        "user_config_schema",
        "mep_version",
    }
)
"""What an endpoint may say about itself: what public endpoints and managers do say."""
LOCK_TIME = 60.0
"""Seconds for which a locked endpoint may not register again."""


def decode(body: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the record to keep of a registration's body.

    Raises:
        Invalid: the body does not fit; the text names the field.
    """
    if body.get("high_assurance") or body.get("authentication_policy"):
        raise Invalid("high_assurance, authentication_policy: this service cannot enforce them")
    metadata = field(body, "metadata", dict, {})
    return {
        "endpoint_name": field(body, "endpoint_name", str),
        "display_name": field(body, "display_name", str, None),
        "multi_user": field(body, "multi_user", bool, False),
        "public": field(body, "public", bool, False),
        "metadata": {key: value for key, value in metadata.items() if key in METADATA},
        "allowed_functions": _ids(body, "allowed_functions"),
        "admins": _ids(body, "admins"),
        "subscription_uuid": field(body, "subscription_uuid", str, None),
    }


def _ids(body: Mapping[str, Any], key: str) -> list[str] | None:
    value = field(body, key, list, None)
    return None if value is None else [uuid_field(item, key) for item in value]


class Registrar:
    """Carries registrations, locks and deletions out."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        passwords: Passwords,
        config: BrokerConfig,
        outcomes: Outcomes,
        limits: Limits,
    ) -> None:
        self._store = store
        self._broker = broker
        self._passwords = passwords
        self._config = config
        self._outcomes = outcomes
        self._limits = limits

    async def register(self, caller: Client, known: Manager | None, record: Mapping[str, Any]) -> dict[str, Any]:
        """Registers a new endpoint, or `known` again; the answer holds its credentials.

        Raises:
            ApiError: 423 while it is locked, 429 when the caller has as many as one may.
            BrokerError: RabbitMQ is not reachable.
        """
        if known is not None and known.locked_until > time.time():
            raise ApiError(423, "RESOURCE_LOCKED", f"Endpoint {known.id} is locked for now; try again in a minute")
        if known is None:
            self._check_count(caller)
        endpoint_id = str(uuid.uuid4()) if known is None else known.id
        owner = caller.identity.id if known is None else known.owner
        await self._broker.declare_queue(topology.command_queue(endpoint_id))

        def keep(db: sqlite3.Connection) -> str:
            db.execute(
                "INSERT INTO endpoint(id, owner, multi_user, public, record) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT(id) DO UPDATE SET multi_user = excluded.multi_user, public = excluded.public,"
                " record = excluded.record",
                (endpoint_id, owner, record["multi_user"], record["public"], json.dumps(record)),
            )
            return self._passwords.give(db, topology.manager_account(endpoint_id))

        url = self._config.url_for(topology.manager_account(endpoint_id), await self._store.write(keep))
        return {
            "endpoint_id": endpoint_id,
            "name": record["endpoint_name"],
            "command_queue_info": topology.source_info(url, topology.COMMANDS, topology.command_queue(endpoint_id)),
            "heartbeat_queue_info": topology.target_info(url, topology.HEARTBEATS, endpoint_id),
        }

    def _check_count(self, caller: Client) -> None:
        most = self._limits.endpoints
        row = self._store.one("SELECT count(*) AS n FROM endpoint WHERE owner = ?", caller.identity.id)
        if row is not None and row["n"] >= most:
            raise TooMany(f"You have {row['n']} endpoints, the most is {most}; delete one that is not needed any more")

    async def lock(self, manager: Manager) -> None:
        """Cuts the manager off and keeps it from registering for LOCK_TIME; its user endpoints go on."""

        def lock(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE endpoint SET locked_until = ?, heartbeat_period = 0 WHERE id = ?",
                (time.time() + LOCK_TIME, manager.id),
            )
            _forget_account(db, topology.manager_account(manager.id))

        await self._store.write(lock)
        await self._broker.delete_queue(topology.command_queue(manager.id))

    async def delete(self, manager: Manager) -> None:
        """Forgets the endpoint and its user endpoints; tasks that wait for them fail."""
        rows = self._store.read("SELECT id FROM user_endpoint WHERE manager = ?", manager.id)
        for row in rows:
            await self._broker.delete_queue(topology.task_queue(row["id"]))
            await self._outcomes.fail_waiting(row["id"], "ENDPOINT_DELETED", f"Endpoint {manager.id} was deleted")
        await self._broker.delete_queue(topology.command_queue(manager.id))

        def forget(db: sqlite3.Connection) -> None:
            for row in rows:
                db.execute("DELETE FROM start WHERE user_endpoint = ?", (row["id"],))
                _forget_account(db, topology.user_endpoint_account(row["id"]))
            db.execute("DELETE FROM user_endpoint WHERE manager = ?", (manager.id,))
            db.execute("DELETE FROM endpoint WHERE id = ?", (manager.id,))
            _forget_account(db, topology.manager_account(manager.id))

        await self._store.write(forget)


def _forget_account(db: sqlite3.Connection, account: str) -> None:
    db.execute("DELETE FROM password WHERE account = ?", (account,))
