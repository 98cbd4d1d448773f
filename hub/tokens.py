"""Bearer tokens: issued to client credentials and people, stored only as hashes, checked on every REST call.

A token is 32 random bytes; a plain SHA-256 of it cannot be guessed back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select
from starlette.requests import Request

from hub import consents
from hub.callers import Callers
from hub.clients import Client
from hub.guesses import Guesses
from hub.limits import Turns
from hub.scopes import COMPUTE, by_resource_server
from hub.store import tables
from hub.store.store import Store
from hub.web import ApiError, Forbidden, NeedsLogin

LIFETIME = 48 * 3600
"""Seconds; as Globus Auth has it."""

_TOKEN = tables.token.c
_VALID = select(_TOKEN.client, _TOKEN.resource_server, _TOKEN.scope).where(
    _TOKEN.hash == bindparam("hash"), _TOKEN.expires > bindparam("now")
)


@dataclass(frozen=True, slots=True)
class Grant:
    """A new token for one resource server."""

    resource_server: str
    scope: str
    access_token: str = field(repr=False)
    expires_in: int = LIFETIME
    refresh_token: str | None = field(default=None, repr=False)


class Tokens:
    """Issues, checks and revokes."""

    def __init__(self, store: Store, callers: Callers, turns: Turns) -> None:
        self._store = store
        self._callers = callers
        self._turns = turns
        self._guesses = Guesses()

    async def client_of_basic(self, request: Request) -> Client:
        """Returns the client whose id and secret the request carries (HTTP Basic); the request is its.

        Raises:
            ApiError: 401 when there is none, 429 when it has too many, or wrong ones were sent too often.
        """
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        try:
            decoded = base64.b64decode(encoded, validate=True).decode() if scheme.lower() == "basic" else ""
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        client_id, _, secret = decoded.partition(":")
        return await self.client_with_secret(request, client_id, secret)

    async def client_with_secret(self, request: Request, client_id: str, secret: str) -> Client:
        """Returns the client with this id and secret; the request is its.

        Raises:
            ApiError: as `client_of_basic`.
        """
        client = self._callers.with_secret(client_id)
        right = client is not None and client.is_secret(secret)
        if client is not None:
            await self._guesses.check(request, client.client_id, right=right)
        if client is None or not right:
            raise ApiError(401, "UNAUTHORIZED", "The client id or secret is not known here")
        self._turns.begin(request.scope, client.client_id)
        return client

    def count(self, request: Request, client: Client) -> None:
        """Counts a request that carries neither secret nor access token for a client.

        Raises:
            ApiError: 429 when it has too many.
        """
        self._turns.begin(request.scope, client.client_id)

    async def issue(self, client: Client, scopes: Iterable[str]) -> list[Grant]:
        """Makes one new token for each resource server that `scopes` name.

        Raises:
            ApiError: 400 for what is no scope, too many, or none.
        """
        asked = " ".join(scopes)
        by_server = by_resource_server(asked)

        def keep(db: Connection) -> list[Grant]:
            consents.keep(db, client.client_id, asked)
            return new_tokens(db, client, by_server)

        return await self._store.write(keep)

    async def caller(self, request: Request, resource_server: str = COMPUTE, scope: str | None = None) -> Client:
        """Returns the client whose token the request carries; the request is its.

        Raises:
            ApiError: 401 without a valid token, 403 when it is for another resource server or not for `scope`, 429 when
                the client has too many.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        row = None
        if scheme.lower() == "bearer":
            row = await self._store.one(_VALID, hash=hashed(token), now=time.time())
        client = await self._callers.get(row.client) if row else None
        if row is None or client is None:
            raise ApiError(401, "UNAUTHORIZED", "The access token is missing, expired, revoked or not from here")
        if row.resource_server != resource_server:
            raise Forbidden(f"The access token is not for {resource_server}")
        if scope is not None and scope not in row.scope.split():
            text = f"The access token is not for {scope}; log in again with it"
            raise NeedsLogin("ConsentRequired", text, required_scopes=[scope])
        self._turns.begin(request.scope, client.client_id)
        return client

    async def consents(self, client: Client) -> list[dict[str, Any]]:
        """Shows what the client's logins had in brackets."""
        return await consents.shown(self._store, client)

    async def revoke(self, client: Client, token: str) -> None:
        """Ends a token of `client`; an unknown one is as good as revoked."""
        its = delete(tables.token).where(_TOKEN.hash == hashed(token.strip()), _TOKEN.client == client.client_id)
        await self._store.execute(its)


def new_tokens(
    db: Connection,
    client: Client,
    by_server: Mapping[str, list[str]],
    *,
    expires: float = math.inf,
    login: tuple[str, str] | None = None,
) -> list[Grant]:
    """Makes a token for each resource server, as part of a larger change of the store.

    expires: when they end at the latest. login: of which login, and of which program, they are.
    """
    now = time.time()
    ends = min(now + LIFETIME, expires)
    grants = [
        Grant(server, " ".join(scopes), secrets.token_urlsafe(32), max(0, int(ends - now)))
        for server, scopes in by_server.items()
    ]
    of_login, app = login or (None, None)
    rows = [
        {
            "hash": hashed(grant.access_token),
            "client": client.client_id,
            "resource_server": grant.resource_server,
            "scope": grant.scope,
            "expires": ends,
            "login": of_login,
            "app": app,
        }
        for grant in grants
    ]
    db.execute(insert(tables.token), rows)
    return grants


def hashed(token: str) -> bytes:
    """What the store has of a token."""
    return hashlib.sha256(token.encode()).digest()
