"""What a program gets once a person has agreed: a code to paste, for it access and refresh tokens; and their end.

The store has them as hashes only. All that came of one consent is one login: it has one end, `max_age` after the person
proved at the provider who they are. A code is good once. One that comes again has been read by somebody else, and ends
that login. Refresh tokens stay the same: processes of one person share them in a file, and the last one to have renewed
it would log the others out.
"""

from __future__ import annotations

import hmac
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from hub import consents
from hub.callers import Callers
from hub.clients import Client
from hub.login.apps import Asked
from hub.login.attempt import s256
from hub.scopes import by_resource_server
from hub.store import tables
from hub.store.store import Store
from hub.tokens import Grant, hashed, new_tokens
from hub.web import ApiError

CODE_LIFETIME = 600
"""Seconds from the consent to the moment when the code has been pasted."""

_CODE = tables.code.c
_REFRESH = tables.refresh_token.c
_TOKEN = tables.token.c


@dataclass(frozen=True, slots=True)
class Issued:
    """Tokens of a person, one for each resource server; `scopes` are all that were agreed to."""

    client: Client
    scope: str
    authenticated_at: float
    grants: Sequence[Grant] = field(repr=False)


class Grants:
    """Codes and refresh tokens. max_age: seconds after which a login at the provider counts no more."""

    def __init__(self, store: Store, callers: Callers, max_age: float) -> None:
        self._store = store
        self._callers = callers
        self._max_age = max_age

    async def agree(self, client: Client, asked: Asked, authenticated_at: float) -> str:
        """Makes the code for what a person has agreed to."""
        code = secrets.token_urlsafe(32)
        row = {
            "hash": hashed(code),
            "login": str(uuid.uuid4()),
            "app": asked.app,
            "client": client.client_id,
            "challenge": asked.challenge,
            "redirect_uri": asked.redirect_uri,
            "scope": asked.scope,
            "offline": asked.offline,
            "authenticated_at": authenticated_at,
            "expires": time.time() + CODE_LIFETIME,
        }
        await self._store.write(lambda db: db.execute(insert(tables.code), row))
        return code

    async def exchange(self, app: str, form: Mapping[str, str]) -> Issued:
        """Gives tokens for a code.

        Raises:
            ApiError: 400 when the code is not good, or not this program's.
        """
        which = hashed(form.get("code", ""))
        known = await self._store.one(select(tables.code).where(_CODE.hash == which))
        client = await self._callers.get(known.client) if known else None
        if known is None or client is None:
            raise _invalid("The code is not known here, or too old; log in again")

        def take(db: Connection) -> list[Grant] | None:
            took = db.execute(update(tables.code).where(_CODE.hash == which, ~_CODE.used).values(used=True)).rowcount
            if not took:
                _end(db, _REFRESH.login == known.login, _TOKEN.login == known.login)
                return None
            if (
                time.time() > known.expires
                or known.app != app
                or known.redirect_uri != form.get("redirect_uri")
                or not hmac.compare_digest(s256(form.get("code_verifier", "")), known.challenge)
            ):
                return None
            consents.keep(db, client.client_id, known.scope)
            expires = known.authenticated_at + self._max_age
            grants = new_tokens(db, client, by_resource_server(known.scope), expires=expires, login=(known.login, app))
            return _with_refresh(db, known, grants, expires) if known.offline else grants

        grants = await self._store.write(take)
        if grants is None:
            raise _invalid("The code is too old, was used before, or is another program's; log in again")
        return Issued(client, known.scope, known.authenticated_at, grants)

    async def refresh(self, app: str, form: Mapping[str, str]) -> Issued:
        """Gives another access token for a refresh token, which stays good.

        Raises:
            ApiError: 400 when it is not good any more, or not this program's.
        """
        token = form.get("refresh_token", "")
        query = select(tables.refresh_token).where(
            _REFRESH.hash == hashed(token), _REFRESH.app == app, _REFRESH.expires > time.time()
        )
        known = await self._store.one(query)
        client = await self._callers.get(known.client) if known else None
        if known is None or client is None:
            raise _invalid("The login is over: it was ended, or is too old; log in again")
        scopes = {known.resource_server: known.scope.split()}

        def renew(db: Connection) -> list[Grant]:
            # It may have been revoked since it was read.
            if db.execute(query).first() is None:
                raise _invalid("The login is over; log in again")
            return new_tokens(db, client, scopes, expires=known.expires, login=(known.login, app))

        grants = await self._store.write(renew)
        return Issued(client, known.scope, 0.0, [replace(grants[0], refresh_token=token)])

    async def revoke(self, app: str, token: str) -> None:
        """Ends an access token, or a refresh token with all that came of it; an unknown one is as good as ended."""
        which = hashed(token.strip())

        def end(db: Connection) -> None:
            row = db.execute(select(tables.refresh_token).where(_REFRESH.hash == which, _REFRESH.app == app)).first()
            if row is not None:
                its = (_TOKEN.login == row.login) & (_TOKEN.resource_server == row.resource_server)
                _end(db, _REFRESH.hash == which, its)
                return
            db.execute(delete(tables.token).where(_TOKEN.hash == which, _TOKEN.app == app))

        await self._store.write(end)

    async def end_all(self, client: Client) -> None:
        """Ends all logins of a person's programs, and all their sessions."""
        which = client.client_id

        def end(db: Connection) -> None:
            _end(db, _REFRESH.client == which, (_TOKEN.client == which) & _TOKEN.login.is_not(None))
            db.execute(delete(tables.code).where(_CODE.client == which))
            db.execute(delete(tables.session).where(tables.session.c.client == which))

        await self._store.write(end)


def _with_refresh(db: Connection, login: Row[Any], grants: Sequence[Grant], expires: float) -> list[Grant]:
    with_refresh = [replace(grant, refresh_token=secrets.token_urlsafe(32)) for grant in grants]
    rows = [
        {
            "hash": hashed(grant.refresh_token or ""),
            "login": login.login,
            "app": login.app,
            "client": login.client,
            "resource_server": grant.resource_server,
            "scope": grant.scope,
            "expires": expires,
        }
        for grant in with_refresh
    ]
    db.execute(insert(tables.refresh_token), rows)
    return with_refresh


def _end(db: Connection, refresh: Any, token: Any) -> None:
    db.execute(delete(tables.refresh_token).where(refresh))
    db.execute(delete(tables.token).where(token))


def _invalid(text: str) -> ApiError:
    """Makes the error of OAuth, in which the public client also reads that it is to begin another login."""
    error = ApiError(400, "invalid_grant", text)
    error.more = {"error": "invalid_grant", "authorization_parameters": {"session_message": text}}
    return error
