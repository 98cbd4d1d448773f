"""Managers and user endpoints as rows of the store: who may use them, are they alive, what is shown of them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, select

from hub.clients import Client
from hub.store import tables
from hub.store.store import Store
from hub.web import Forbidden, NotFound

MISSED_PERIODS = 2.5
"""An endpoint is offline after this many heartbeat periods without a heartbeat."""

_NAMESPACE = uuid.UUID("c6d1b3f4-7f5e-5a3c-9d3e-3f1f0f2f8a11")
_BY_ID = select(tables.endpoint).where(tables.endpoint.c.id == bindparam("which"))


@dataclass(frozen=True, slots=True)
class Manager:
    """A registered endpoint. `record` is what it registered with."""

    id: str
    owner: str
    multi_user: bool
    public: bool
    record: Mapping[str, Any]
    locked_until: float
    online: bool
    report: Mapping[str, Any]
    seen_at: float | None = None

    def is_run_by(self, client: Client) -> bool:
        """Tells whether the client may change the manager: its owner, or one of the `admins` it registered with."""
        return client.is_one_of(self.owner) or any(client.is_one_of(a) for a in self.record.get("admins") or ())

    def is_open_to(self, client: Client) -> bool:
        """Tells whether the client may submit to it, and see it when it knows its id.

        `public` has no say in this: it makes an endpoint be found by others. Who may run tasks under which account is
        the business of the manager's mapping; an endpoint that has none is its owner's alone.
        """
        return self.multi_user or self.is_run_by(client)

    def is_listed_for(self, client: Client) -> bool:
        """Tells whether the client finds it without its id."""
        return self.public or self.is_run_by(client)

    @property
    def allowed_functions(self) -> list[str] | None:
        """The only functions that the manager runs; None when it runs any."""
        allowed: list[str] | None = self.record.get("allowed_functions")
        return allowed

    @property
    def policy(self) -> str | None:
        """The authentication policy that who submits has to satisfy; None when there is none."""
        policy: str | None = self.record.get("authentication_policy")
        return policy

    def shown(self) -> dict[str, Any]:
        """Shows the manager to those it is open to; its configuration is its owner's business."""
        return {
            "uuid": self.id,
            "name": self.record["endpoint_name"],
            "display_name": self.record.get("display_name"),
            "owner": self.owner,
            "multi_user": self.multi_user,
            "public": self.public,
            "authentication_policy": self.policy,
        }


async def read_manager(store: Store, endpoint_id: str) -> Manager:
    """Returns the manager with this id.

    Raises:
        NotFound: there is none.
    """
    row = await store.one(_BY_ID, which=endpoint_id)
    if row is None:
        raise NotFound("endpoint", endpoint_id)
    return manager_of(row)


async def open_manager(store: Store, endpoint_id: str, client: Client) -> Manager:
    """Returns the manager with this id, for seeing it and submitting to it.

    Raises:
        NotFound, Forbidden: there is none, or it is not open to the client.
    """
    manager = await read_manager(store, endpoint_id)
    if not manager.is_open_to(client):
        raise Forbidden(f"Endpoint {endpoint_id} is for its owner alone")
    return manager


async def own_manager(store: Store, endpoint_id: str, client: Client) -> Manager:
    """Returns the manager with this id, for changing it.

    Raises:
        NotFound, Forbidden: there is none, or the client does not run it.
    """
    manager = await read_manager(store, endpoint_id)
    if not manager.is_run_by(client):
        raise Forbidden(f"Endpoint {endpoint_id} is registered to somebody else")
    return manager


def manager_of(row: Row[Any]) -> Manager:
    """Makes a manager of a row of table `endpoint`."""
    return Manager(
        id=row.id,
        owner=row.owner,
        multi_user=row.multi_user,
        public=row.public,
        record=json.loads(row.record),
        locked_until=row.locked_until,
        online=is_online(row),
        report=json.loads(row.report or "{}"),
        seen_at=row.heartbeat_at,
    )


def is_online(row: Row[Any]) -> bool:
    """Tells whether an endpoint (a row of `endpoint` or `user_endpoint`) is alive by its last heartbeat."""
    return is_alive(row.heartbeat_at, row.heartbeat_period)


def is_alive(heartbeat_at: float | None, heartbeat_period: float | None) -> bool:
    """Tells whether a last heartbeat at that time, when so many seconds were due until the next, is recent enough."""
    if heartbeat_at is None or not heartbeat_period:
        return False
    return time.time() - heartbeat_at <= MISSED_PERIODS * heartbeat_period


def canonical(options: Mapping[str, Any]) -> str:
    """Makes the same text of equal options, whatever the order of their keys."""
    return json.dumps(options, sort_keys=True, separators=(",", ":"))


def user_endpoint_id(manager_id: str, identity_id: str, options: Mapping[str, Any]) -> str:
    """Makes the id of a user's endpoint with these options: the same at every submission."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join((manager_id, identity_id, canonical(options)))))


async def timeline(store: Store, user_endpoint_id: str) -> list[dict[str, Any]]:
    """Lists when a user endpoint was told to start, checked in and gave its first result; oldest start first."""
    shown = [column for column in tables.start.c if column.name not in ("id", "user_endpoint")]
    starts = select(*shown).where(tables.start.c.user_endpoint == user_endpoint_id).order_by(tables.start.c.id)
    return [dict(row._mapping) for row in await store.read(starts)]
