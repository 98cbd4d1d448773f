"""Consents: what clients have asked for in the brackets behind a scope, which they ask about again.

Whoever logs in consents to all of it, and nothing here depends on it: a program of a person's wants to see that the
other service may act for its user, and begins another login when it does not.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, delete, select

from hub import scopes
from hub.clients import Client
from hub.store import tables
from hub.store.store import Store, upsert

KEEP = 366 * 86400
"""Seconds after the last login that asked for it."""
MOST = 500
"""Of one client; the oldest are forgotten."""

_CONSENT = tables.consent.c
_NAMESPACE = uuid.UUID("6e0d1c7a-52c5-5a0e-8f0e-3b9d0f6c1a54")


def keep(db: Connection, client_id: str, scope: str) -> None:
    """Notes what stands in brackets in the scopes of a login, as part of a larger change of the store."""
    asked = scopes.paths(scope)
    trees = {path[0] for path in asked if len(path) > 1}
    if not trees:
        return
    now = time.time()
    rows = [{"client": client_id, "path": json.dumps(path), "given_at": now} for path in asked if path[0] in trees]
    db.execute(upsert(db.dialect.name, tables.consent, "given_at"), rows)
    own = _CONSENT.client == client_id
    newest = select(_CONSENT.path).where(own).order_by(_CONSENT.given_at.desc(), _CONSENT.path).limit(MOST)
    db.execute(delete(tables.consent).where(own, _CONSENT.path.not_in(newest)))


def forget_old(db: Connection, now: float) -> None:
    """Removes what nobody has asked for in KEEP seconds."""
    db.execute(delete(tables.consent).where(_CONSENT.given_at < now - KEEP))


async def shown(store: Store, client: Client) -> list[dict[str, Any]]:
    """Shows the client's consents as Globus Auth does; each has the numbers of those on its path."""
    rows = await store.read(select(tables.consent).where(_CONSENT.client == client.client_id))
    given = {tuple(json.loads(row.path)): row.given_at for row in rows}
    numbers = {path: number for number, path in enumerate(sorted(given), 1)}
    return [
        _shown(client, path, given[path], [numbers[path[: end + 1]] for end in range(len(path))])
        for path in numbers
        if all(path[:end] in numbers for end in range(1, len(path)))
    ]


def _shown(client: Client, path: tuple[str, ...], given_at: float, numbers: list[int]) -> dict[str, Any]:
    at = datetime.fromtimestamp(given_at, timezone.utc).isoformat()
    return {
        "id": numbers[-1],
        "dependency_path": numbers,
        "scope_name": path[-1],
        "scope": str(uuid.uuid5(_NAMESPACE, path[-1])),
        "client": client.client_id if len(path) == 1 else str(uuid.uuid5(_NAMESPACE, path[-2])),
        "effective_identity": client.identity.id,
        "created": at,
        "updated": at,
        "last_used": at,
        "status": "approved",
        "allows_refresh": True,
        "auto_approved": False,
        "atomically_revocable": len(path) > 1,
    }
