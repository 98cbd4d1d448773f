"""Managers and user endpoints as rows of the store: who may use them, are they alive, what is shown of them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, case, delete, insert, or_, select

from hub.clients import Client
from hub.store import tables
from hub.store.store import Store, storable, upsert
from hub.web import Forbidden, NotFound

MISSED_PERIODS = 2.5
"""An endpoint is offline after this many heartbeat periods without a heartbeat."""

_NAMESPACE = uuid.UUID("c6d1b3f4-7f5e-5a3c-9d3e-3f1f0f2f8a11")
_BY_ID = select(tables.endpoint).where(tables.endpoint.c.id == bindparam("which"))
_ADMINS = select(tables.endpoint_admin.c.identity).where(tables.endpoint_admin.c.endpoint == bindparam("which"))
_RECORD = select(tables.endpoint_record.c.record).where(tables.endpoint_record.c.id == bindparam("which"))
_LISTED = (
    *(tables.endpoint.c[name] for name in ("id", "owner", "multi_user", "public", "name", "display_name")),
    tables.endpoint.c.authentication_policy.label("policy"),
    tables.endpoint.c.registered_at,
)


@dataclass(frozen=True, slots=True)
class Manager:
    """A registered endpoint, without the longest of what it registered with: `read_metadata`.

    policy: the authentication policy that who submits has to satisfy; None when there is none. allowed_functions: the
    only ones that it runs; None when it runs any.
    """

    id: str
    owner: str
    admins: frozenset[str]
    multi_user: bool
    public: bool
    name: str
    display_name: str | None
    policy: str | None
    allowed_functions: list[str] | None
    locked_until: float
    online: bool
    report: Mapping[str, Any]
    seen_at: float | None = None

    def is_run_by(self, client: Client) -> bool:
        """Tells whether the client may change the manager: its owner, or one of the `admins` it registered with."""
        return client.is_one_of(self.owner) or any(identity.id in self.admins for identity in client.identities)

    def is_open_to(self, client: Client) -> bool:
        """Tells whether the client may submit to it, and see it when it knows its id.

        `public` has no say in this: it makes an endpoint be found by others. Who may run tasks under which account is
        the business of the manager's mapping; an endpoint that has none is its owner's alone.
        """
        return self.multi_user or self.is_run_by(client)


async def read_manager(store: Store, endpoint_id: str) -> Manager:
    """Returns the manager with this id.

    Raises:
        NotFound: there is none.
    """
    row = await store.one(_BY_ID, which=endpoint_id)
    if row is None:
        raise NotFound("endpoint", endpoint_id)
    admins = await store.read(_ADMINS, which=endpoint_id)
    return Manager(
        id=row.id,
        owner=row.owner,
        admins=frozenset(each.identity for each in admins),
        multi_user=row.multi_user,
        public=row.public,
        name=row.name,
        display_name=row.display_name,
        policy=row.authentication_policy,
        allowed_functions=json.loads(row.allowed_functions or "null"),
        locked_until=row.locked_until,
        online=is_online(row),
        report=json.loads(row.report or "{}"),
        seen_at=row.heartbeat_at,
    )


async def read_metadata(store: Store, endpoint_id: str) -> dict[str, Any]:
    """Returns what an endpoint has said about itself: its host, its configuration, its template and schema.

    Raises:
        NotFound: there is none.
    """
    row = await store.one(_RECORD, which=endpoint_id)
    if row is None:
        raise NotFound("endpoint", endpoint_id)
    metadata: dict[str, Any] = json.loads(row.record)["metadata"]
    return metadata


async def listed(store: Store, which: ColumnElement[bool]) -> AsyncIterator[list[dict[str, Any]]]:
    """Shows the endpoints of which `which` holds, in the order of their registration, a part at a time."""
    columns = tables.endpoint.c
    async for rows in store.parts(select(*_LISTED).where(which), columns.registered_at, columns.id):
        yield [shown(row) for row in rows]


def shown(of: Manager | Row[Any]) -> dict[str, Any]:
    """Shows an endpoint to those it is open to; its configuration is its owner's business."""
    return {
        "uuid": of.id,
        "name": of.name,
        "display_name": of.display_name,
        "owner": of.owner,
        "multi_user": of.multi_user,
        "public": of.public,
        "authentication_policy": of.policy,
    }


def run_by(client: Client) -> ColumnElement[bool]:
    """Says of rows of `endpoint` what `Manager.is_run_by` says of one."""
    ids = [identity.id for identity in client.identities]
    admin = tables.endpoint_admin.c
    named = select(admin.endpoint).where(admin.identity.in_(ids))
    return or_(tables.endpoint.c.owner.in_(ids), tables.endpoint.c.id.in_(named))


def listed_for(client: Client) -> ColumnElement[bool]:
    """Says of rows of `endpoint` whether the client finds them without their ids."""
    return or_(tables.endpoint.c.public, run_by(client))


def keep(db: Connection, endpoint_id: str, owner: str, record: Mapping[str, Any]) -> None:
    """Keeps what an endpoint has registered with, in place of what it had. `owner` is that of a new one."""
    display_name, functions = record.get("display_name"), record.get("allowed_functions")
    said = {
        "multi_user": record["multi_user"],
        "public": record["public"],
        "name": storable(record["endpoint_name"]),
        "display_name": None if display_name is None else storable(display_name),
        "authentication_policy": record.get("authentication_policy"),
        "allowed_functions": None if functions is None else json.dumps(functions),
    }
    row = {"id": endpoint_id, "owner": owner, "registered_at": time.time(), **said}
    db.execute(upsert(db.dialect.name, tables.endpoint, *said), row)
    whole = {"id": endpoint_id, "record": json.dumps(record)}
    db.execute(upsert(db.dialect.name, tables.endpoint_record, "record"), whole)
    db.execute(delete(tables.endpoint_admin).where(tables.endpoint_admin.c.endpoint == endpoint_id))
    if admins := dict.fromkeys(record.get("admins") or ()):
        db.execute(insert(tables.endpoint_admin), [{"identity": each, "endpoint": endpoint_id} for each in admins])


def forget(db: Connection, endpoint_id: str) -> None:
    """Forgets what `keep` has kept."""
    db.execute(delete(tables.endpoint_admin).where(tables.endpoint_admin.c.endpoint == endpoint_id))
    db.execute(delete(tables.endpoint_record).where(tables.endpoint_record.c.id == endpoint_id))
    db.execute(delete(tables.endpoint).where(tables.endpoint.c.id == endpoint_id))


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


def is_online(row: Row[Any]) -> bool:
    """Tells whether an endpoint (a row of `endpoint` or `user_endpoint`) is alive by its last heartbeat."""
    return is_alive(row.heartbeat_at, row.heartbeat_period)


def is_alive(heartbeat_at: float | None, heartbeat_period: float | None) -> bool:
    """Tells whether a last heartbeat at that time, when so many seconds were due until the next, is recent enough."""
    if heartbeat_at is None or not heartbeat_period:
        return False
    return time.time() - heartbeat_at <= MISSED_PERIODS * heartbeat_period


def online_at(now: float) -> ColumnElement[int]:
    """Says of rows of `endpoint` what `is_online` says of one: 1 or 0."""
    known = tables.endpoint.c
    alive = and_(known.heartbeat_period > 0, known.heartbeat_at >= now - MISSED_PERIODS * known.heartbeat_period)
    return case((alive, 1), else_=0)


def canonical(options: Mapping[str, Any]) -> str:
    """Makes the same text of equal options, whatever the order of their keys."""
    return json.dumps(options, sort_keys=True, separators=(",", ":"))


def user_endpoint_id(manager_id: str, identity_id: str, options: Mapping[str, Any]) -> str:
    """Makes the id of a user's endpoint with these options: the same at every submission."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join((manager_id, identity_id, canonical(options)))))


async def timelines(store: Store, user_endpoints: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Lists for each when it was told to start, checked in and gave its first result; oldest start first."""
    start = tables.start.c
    columns = [column for column in start if column.name not in ("id", "user_endpoint")]
    rows = await store.read(
        select(start.user_endpoint, *columns).where(start.user_endpoint.in_(user_endpoints)).order_by(start.id)
    )
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in user_endpoints}
    for row in rows:
        found[row.user_endpoint].append({column.name: getattr(row, column.name) for column in columns})
    return found
