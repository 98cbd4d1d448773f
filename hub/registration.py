"""Endpoints come and go: register, lock, delete. Each is a change of the store and of what is declared in RabbitMQ."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from hub import endpoints, stopping
from hub.amqp import topology
from hub.amqp.broker import Broker
from hub.amqp.passwords import Passwords
from hub.clients import Client
from hub.config import BrokerConfig
from hub.endpoints import Manager
from hub.limits import Limits
from hub.outcomes import Outcomes
from hub.store import tables
from hub.store.store import Store
from hub.web import ApiError, Invalid, TooLarge, TooMany, check_size, field, text_field, uuid_field

METADATA = frozenset(
    {
        "endpoint_version",
        "python_version",
        "hostname",
        "local_user",
        "endpoint_config",
        "user_config_template",
        "user_config_schema",
    }
)
"""What an endpoint may say about itself: what endpoints do say."""
NAME_LENGTH = 256
"""Characters of a name."""
METADATA_BYTES = 2**20
"""Of what an endpoint says about itself: most of it its template and schema."""
MOST_IDS = 5000
"""Functions that an endpoint is restricted to, and accounts that run it."""
LOCK_TIME = 60.0
"""Seconds for which a locked endpoint may not register again."""


def decode(body: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the record to keep of a registration's body.

    Raises:
        Invalid, TooLarge: the body does not fit; the text names the field.
    """
    if body.get("high_assurance"):
        raise Invalid("high_assurance: this service cannot enforce it")
    policy = field(body, "authentication_policy", str, None)
    metadata = {key: value for key, value in field(body, "metadata", dict, {}).items() if key in METADATA}
    check_size(metadata, "metadata", METADATA_BYTES)
    return {
        "endpoint_name": text_field(body, "endpoint_name", NAME_LENGTH),
        "display_name": text_field(body, "display_name", NAME_LENGTH, None),
        "multi_user": field(body, "multi_user", bool, False),
        "public": field(body, "public", bool, False),
        "metadata": metadata,
        "allowed_functions": _ids(body, "allowed_functions"),
        "admins": _ids(body, "admins"),
        "authentication_policy": uuid_field(policy, "authentication_policy") if policy else None,
        "subscription_uuid": text_field(body, "subscription_uuid", NAME_LENGTH, None),
    }


def _ids(body: Mapping[str, Any], key: str) -> list[str] | None:
    value = field(body, key, list, None)
    if value is not None and len(value) > MOST_IDS:
        raise TooLarge(f"{key}: has {len(value)} ids, the most is {MOST_IDS}")
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
            await self._check_count(caller)
        endpoint_id = str(uuid.uuid4()) if known is None else known.id
        owner = caller.identity.id if known is None else known.owner
        await self._broker.declare_queue(topology.command_queue(endpoint_id))

        def keep(db: Connection) -> str:
            endpoints.keep(db, endpoint_id, owner, record)
            return self._passwords.give(db, topology.manager_account(endpoint_id))

        url = self._config.url_for(topology.manager_account(endpoint_id), await self._store.write(keep))
        return {
            "endpoint_id": endpoint_id,
            "name": record["endpoint_name"],
            "command_queue_info": topology.source_info(url, topology.COMMANDS, topology.command_queue(endpoint_id)),
            "heartbeat_queue_info": topology.target_info(url, topology.HEARTBEATS, endpoint_id),
        }

    async def _check_count(self, caller: Client) -> None:
        most = self._limits.endpoints
        own = select(func.count().label("n")).where(tables.endpoint.c.owner == caller.identity.id)
        row = await self._store.one(own)
        if row is not None and row.n >= most:
            raise TooMany(f"You have {row.n} endpoints, the most is {most}; delete one that is not needed any more")

    async def lock(self, manager: Manager) -> None:
        """Cuts the manager off and keeps it from registering for LOCK_TIME; its user endpoints go on."""

        def lock(db: Connection) -> None:
            locked = {"locked_until": time.time() + LOCK_TIME, "heartbeat_period": 0}
            db.execute(update(tables.endpoint).where(tables.endpoint.c.id == manager.id).values(locked))
            _forget_account(db, topology.manager_account(manager.id))

        await self._store.write(lock)
        await self._broker.delete_queue(topology.command_queue(manager.id))

    async def delete(self, manager: Manager) -> None:
        """Forgets the endpoint and its user endpoints, which are asked to stop; tasks that wait for them fail."""
        await stopping.have_stopped(self._store, self._broker, manager.id)
        known = tables.user_endpoint.c
        ids = [row.id for row in await self._store.read(select(known.id).where(known.manager == manager.id))]
        for user_endpoint in ids:
            await self._broker.delete_queue(topology.task_queue(user_endpoint))
            await self._outcomes.fail_waiting(user_endpoint, "ENDPOINT_DELETED", f"Endpoint {manager.id} was deleted")
        await self._broker.delete_queue(topology.command_queue(manager.id))

        def forget(db: Connection) -> None:
            for user_endpoint in ids:
                db.execute(delete(tables.start).where(tables.start.c.user_endpoint == user_endpoint))
                _forget_account(db, topology.user_endpoint_account(user_endpoint))
            db.execute(delete(tables.user_endpoint).where(known.manager == manager.id))
            endpoints.forget(db, manager.id)
            _forget_account(db, topology.manager_account(manager.id))

        await self._store.write(forget)


def _forget_account(db: Connection, account: str) -> None:
    db.execute(delete(tables.password).where(tables.password.c.account == account))
