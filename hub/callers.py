"""Whoever may call: the client credentials of hub.yaml, and people who have logged in with a browser.

A person is a client whose id is that of their identity. Of what the provider said at their last login there is a row,
and one for each of their usernames: a name is one person's, whoever came first, until an admin forgets that person.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, insert, select

from hub import credentials
from hub.clients import Client, Identity
from hub.store import tables
from hub.store.store import Store

_PERSON = tables.person.c
_NAME = tables.person_name.c
_BY_ID = select(_PERSON.identities).where(_PERSON.id == bindparam("which"))


class NameTaken(Exception):
    """A username is somebody else's; the text says whose, for the log."""


class Callers:
    """Finds clients by id. linked: more identities of people, by username; None: nobody can log in with a browser."""

    def __init__(
        self, store: Store, configured: Mapping[str, Client], linked: Mapping[str, tuple[Identity, ...]] | None = None
    ) -> None:
        self._store = store
        self._configured = configured
        self._linked = linked
        self._records = {i.id: i for client in configured.values() for i in client.identities}

    def with_secret(self, client_id: str) -> Client | None:
        """Returns a client of hub.yaml."""
        return self._configured.get(client_id.lower())

    async def get(self, client_id: str) -> Client | None:
        """Returns a client of hub.yaml, or a person; None when it is neither any more."""
        client = self._configured.get(client_id)
        if client is not None or self._linked is None:
            return client
        row = await self._store.one(_BY_ID, which=client_id)
        return None if row is None else self._person(row.identities)

    async def welcome(self, identities: tuple[Identity, ...]) -> Client:
        """Writes down who has logged in, with what the provider says of them now.

        Raises:
            NameTaken: one of the usernames belongs to another identity.
        """
        main = identities[0]
        for other in self._records.values():
            if any(other.username.lower() == each.username and other.id != each.id for each in identities):
                raise NameTaken(f"{other.username} is identity {other.id} of hub.yaml, not {main.id}")
        stored = json.dumps([asdict(identity) for identity in identities])
        names = [{"name": each.username, "person": main.id} for each in identities]
        same_names = select(tables.person_name).where(_NAME.name.in_([each.username for each in identities]))

        def write(db: Connection) -> None:
            db.execute(delete(tables.person_name).where(_NAME.person == main.id))
            taken = db.execute(same_names).first()
            if taken is not None:
                raise NameTaken(f"{taken.name} is identity {taken.person}, not {main.id}")
            db.execute(delete(tables.person).where(_PERSON.id == main.id))
            db.execute(insert(tables.person), {"id": main.id, "identities": stored, "seen_at": time.time()})
            db.execute(insert(tables.person_name), names)

        await self._store.write(write)
        return self._person(stored)

    async def identities(self, ids: Collection[str], usernames: Collection[str]) -> list[Identity]:
        """Finds identity records by id or username."""
        found = {i.id: i for i in self._records.values() if i.id in ids or i.username in usernames}
        if self._linked is not None:
            named = select(_NAME.person).where(_NAME.name.in_([name.lower() for name in usernames]))
            query = select(_PERSON.identities).where(_PERSON.id.in_(ids) | _PERSON.id.in_(named))
            for row in await self._store.read(query):
                found |= {
                    i.id: i for i in self._person(row.identities).identities if i.id in ids or i.username in usernames
                }
        return list(found.values())

    async def forget(self, username: str) -> str | None:
        """Ends all that the holder of a name has, and frees their names; returns their id, None for nobody."""
        row = await self._store.one(select(_NAME.person).where(_NAME.name == username.lower()))
        if row is None:
            return None
        which: str = row.person

        def forget(db: Connection) -> None:
            credentials.end_all(db, which, which)
            db.execute(delete(tables.person_name).where(_NAME.person == which))
            db.execute(delete(tables.person).where(_PERSON.id == which))

        await self._store.write(forget)
        return which

    def _person(self, stored: str) -> Client:
        identities = tuple(Identity(**record) for record in json.loads(stored))
        assert self._linked is not None
        return Client(identities[0].id, None, (*identities, *self._linked.get(identities[0].username, ())))
