"""Passwords of AMQP accounts: several valid ones for each account, stored as hashes, renewed while their holder lives.

Every start command carries a password. Because only hashes are stored, the hub remembers in memory what it has made,
and gives it again for REUSE; so an endpoint may hold an older one than the newest. A password that has been used to
log in is renewed by its account's heartbeats: an endpoint whose manager cannot refresh it must still be able to
reconnect after weeks and deliver its result.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from hub.store.store import Store
from hub.store.tables import password as passwords

LIFETIME = 7 * 86400
"""Seconds that an unused or no longer renewed password is valid."""
REUSE = 86400
"""Seconds for which a new password is given again, instead of another one for each submission."""
_RENEW_EVERY = 3600

_OF_ACCOUNT = passwords.c.account == bindparam("of")
_THIS = _OF_ACCOUNT & (passwords.c.hash == bindparam("digest"))
_FRESH = passwords.c.expires > bindparam("now")
_VALID = select(passwords.c.used).where(_THIS, _FRESH)
_ANY = select(passwords.c.account).where(_OF_ACCOUNT, _FRESH).limit(1)
_CHANGE = update(passwords).where(_THIS)
_RENEW = update(passwords).where(_OF_ACCOUNT, passwords.c.used)


class Passwords:
    """Makes, checks, renews and removes them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._renewed: dict[str, float] = {}
        self._newest: dict[str, tuple[str, float]] = {}

    def give(self, db: Connection, account: str) -> str:
        """Returns a password for `account` that is good for LIFETIME, as part of a larger change of the store."""
        now = time.time()
        password, made_at = self._newest.get(account, ("", 0.0))
        # One that has been taken away since, or whose change was undone, is not in the store.
        if now - made_at < REUSE and db.execute(_CHANGE, _which(account, password, expires=now + LIFETIME)).rowcount:
            return password
        password = secrets.token_urlsafe(32)
        db.execute(insert(passwords), {"account": account, "hash": _hash(password), "expires": now + LIFETIME})
        self._newest[account] = password, now
        return password

    async def is_valid(self, account: str, password: str) -> bool:
        """Tells whether `account` may log in with `password`; remembers that it did."""
        row = await self._store.one(_VALID, **_which(account, password, now=time.time()))
        if row is not None and not row.used:
            await self._store.execute(_CHANGE, **_which(account, password, used=True))
        return row is not None

    async def exists(self, account: str) -> bool:
        """Tells whether `account` has a valid password."""
        return await self._store.one(_ANY, of=account, now=time.time()) is not None

    def renew(self, db: Connection, account: str, now: float) -> None:
        """Keeps valid what the account has used, because it sent a heartbeat. Writes at most once an hour."""
        if now - self._renewed.get(account, 0) < _RENEW_EVERY:
            return
        db.execute(_RENEW, {"of": account, "expires": now + LIFETIME})
        self._renewed[account] = now

    def forget_old(self, db: Connection, now: float) -> None:
        """Removes what is valid no more, from the store and from memory."""
        db.execute(delete(passwords).where(passwords.c.expires < now))
        self._newest = {account: given for account, given in self._newest.items() if now - given[1] < REUSE}
        self._renewed = {account: at for account, at in self._renewed.items() if now - at < _RENEW_EVERY}


def _which(account: str, password: str, **more: Any) -> dict[str, Any]:
    return {"of": account, "digest": _hash(password), **more}


def _hash(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()
