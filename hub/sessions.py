"""Browser sessions: who is logged in at the hub's pages, by a cookie of which the store has only the hash.

With TLS the cookie's name begins with `__Host-`: no other host of the site, and no page without TLS, can set it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select
from starlette.requests import Request
from starlette.responses import Response

from hub.callers import Callers
from hub.clients import Client
from hub.limits import Turns
from hub.store import tables
from hub.store.store import Store

LIFETIME = 12 * 3600
"""Seconds; then one logs in again."""

_SESSION = tables.session.c
_VALID = select(_SESSION.client, _SESSION.authenticated_at).where(
    _SESSION.hash == bindparam("hash"), _SESSION.expires > bindparam("now")
)


@dataclass(frozen=True, slots=True)
class Session:
    """Who is logged in, and when they proved it (seconds since the epoch)."""

    client: Client
    authenticated_at: float


class Sessions:
    """Begins, finds and ends sessions."""

    def __init__(self, store: Store, callers: Callers, turns: Turns) -> None:
        self._store = store
        self._callers = callers
        self._turns = turns

    async def begin(
        self, request: Request, response: Response, client: Client, authenticated_at: float | None = None
    ) -> None:
        """Logs in who asks: `response` sets the cookie. A session that the browser had before is over.

        authenticated_at: when they proved who they are, if not just now.
        """
        token, now = secrets.token_urlsafe(32), time.time()
        row = {
            "hash": _hash(token),
            "client": client.client_id,
            "authenticated_at": now if authenticated_at is None else authenticated_at,
            "expires": now + LIFETIME,
        }
        before = request.cookies.get(cookie_name(request, "session"), "")
        await self._store.write(
            lambda db: (
                db.execute(delete(tables.session).where(_SESSION.hash == _hash(before))),
                db.execute(insert(tables.session), row),
            )
        )
        set_cookie(request, response, "session", token, LIFETIME)

    async def of(self, request: Request) -> Session | None:
        """Returns the session that the request belongs to; the request is its client's.

        Raises:
            ApiError: 429 when the client has too many requests.
        """
        token = request.cookies.get(cookie_name(request, "session"))
        row = await self._store.one(_VALID, hash=_hash(token), now=time.time()) if token else None
        client = await self._callers.get(row.client) if row else None
        if token is None or row is None or client is None:
            return None
        self._turns.begin(request.scope, client.client_id)
        return Session(client, row.authenticated_at)

    async def client_of(self, request: Request) -> Client | None:
        """Returns who is logged in. Errors as for `of`."""
        session = await self.of(request)
        return None if session is None else session.client

    def csrf(self, request: Request) -> str:
        """Returns what a form has to carry to be of this session; of no session it is empty."""
        token = request.cookies.get(cookie_name(request, "session"))
        return hmac.digest(token.encode(), b"csrf", "sha256").hex() if token else ""

    def is_csrf(self, request: Request, text: str) -> bool:
        """Tells whether `text`, of a form, is what `csrf` has put there."""
        wanted = self.csrf(request)
        return bool(wanted) and hmac.compare_digest(wanted.encode(), text.encode())

    async def end(self, request: Request, response: Response) -> None:
        """Logs out; harmless when nobody is logged in."""
        token = request.cookies.get(cookie_name(request, "session"))
        if token:
            await self._store.execute(delete(tables.session).where(_SESSION.hash == _hash(token)))
        drop_cookie(request, response, "session")


def cookie_name(request: Request, what: str) -> str:
    """Names a cookie of ours."""
    return f"__Host-mep-{what}" if _is_secure(request) else f"mep-{what}"


def set_cookie(request: Request, response: Response, what: str, value: str, lifetime: int) -> None:
    """Sets a cookie that only this host gets, and only where a person came by themselves, or by a link."""
    response.set_cookie(
        cookie_name(request, what),
        value,
        max_age=lifetime,
        path="/",
        secure=_is_secure(request),
        httponly=True,
        samesite="lax",
    )


def drop_cookie(request: Request, response: Response, what: str) -> None:
    """Has the browser forget a cookie."""
    set_cookie(request, response, what, "", 0)


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
