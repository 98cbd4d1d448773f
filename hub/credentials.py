"""What came of a client's secret ends when hub.yaml has another one: whoever had the old one is logged out.

`server` calls it at each start, before anybody is served. The store has, of each secret, the hash of its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from hub.amqp import topology
from hub.clients import Client
from hub.store import tables
from hub.store.store import Store, upsert

_CREDENTIAL = tables.credential


async def end_old(store: Store, clients: Iterable[Client]) -> list[str]:
    """Ends all that those have whose secret has changed since a hub began the last time; returns their ids.

    Raises:
        SQLAlchemyError: the database cannot be used.
    """
    secrets = {client: hashlib.sha256(client.secret_sha256).digest() for client in clients if client.secret_sha256}

    def change(db: Connection) -> list[str]:
        before = {row.client: row.secret for row in db.execute(select(_CREDENTIAL))}
        changed = [client for client, secret in secrets.items() if before.get(client.client_id, secret) != secret]
        for client in changed:
            end_all(db, client.client_id, client.identity.id)
        rows = [{"client": client.client_id, "secret": secret} for client, secret in secrets.items()]
        if rows:
            db.execute(upsert(db.dialect.name, _CREDENTIAL, "secret"), rows)
        return [client.client_id for client in changed]

    return await store.write(change)


def end_all(db: Connection, client_id: str, identity_id: str) -> None:
    """Ends a client's logins, sessions and tokens, and its account at the broker."""
    for table in (tables.session, tables.code, tables.refresh_token, tables.token):
        db.execute(delete(table).where(table.c.client == client_id))
    db.execute(delete(tables.password).where(tables.password.c.account == topology.client_account(identity_id)))
