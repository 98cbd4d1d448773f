"""Passwords of AMQP accounts: several valid ones for each account, stored as hashes, renewed while their holder lives.

Every start command carries a password. Because only hashes are stored, the hub remembers in memory what it has made,
and gives it again for REUSE; so an endpoint may hold an older one than the newest. A password that has been used to
log in is renewed by its account's heartbeats: an endpoint whose manager cannot refresh it must still be able to
reconnect after weeks and deliver its result.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time

from hub.store import Store

LIFETIME = 7 * 86400
"""Seconds that an unused or no longer renewed password is valid."""
REUSE = 86400
"""Seconds for which a new password is given again, instead of another one for each submission."""
_RENEW_EVERY = 3600


class Passwords:
    """Makes, checks, renews and removes them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._renewed: dict[str, float] = {}
        self._newest: dict[str, tuple[str, float]] = {}

    def give(self, db: sqlite3.Connection, account: str) -> str:
        """Returns a password for `account` that is good for LIFETIME, as part of a larger change of the store."""
        now = time.time()
        password, made_at = self._newest.get(account, ("", 0.0))
        # One that has been taken away since, or whose change was undone, is not in the store.
        if (
            now - made_at < REUSE
            and db.execute(
                "UPDATE password SET expires = ? WHERE account = ? AND hash = ?",
                (now + LIFETIME, account, _hash(password)),
            ).rowcount
        ):
            return password
        password = secrets.token_urlsafe(32)
        db.execute(
            "INSERT INTO password(account, hash, expires) VALUES (?, ?, ?)", (account, _hash(password), now + LIFETIME)
        )
        self._newest[account] = password, now
        return password

    async def is_valid(self, account: str, password: str) -> bool:
        """Tells whether `account` may log in with `password`; remembers that it did."""
        digest = _hash(password)
        row = self._store.one(
            "SELECT used FROM password WHERE account = ? AND hash = ? AND expires > ?", account, digest, time.time()
        )
        if row is not None and not row["used"]:
            await self._store.execute("UPDATE password SET used = 1 WHERE account = ? AND hash = ?", account, digest)
        return row is not None

    def exists(self, account: str) -> bool:
        """Tells whether `account` has a valid password."""
        return (
            self._store.one("SELECT 1 FROM password WHERE account = ? AND expires > ? LIMIT 1", account, time.time())
            is not None
        )

    def renew(self, db: sqlite3.Connection, account: str, now: float) -> None:
        """Keeps valid what the account has used, because it sent a heartbeat. Writes at most once an hour."""
        if now - self._renewed.get(account, 0) < _RENEW_EVERY:
            return
        db.execute("UPDATE password SET expires = ? WHERE account = ? AND used", (now + LIFETIME, account))
        self._renewed[account] = now

    def forget_old(self, db: sqlite3.Connection, now: float) -> None:
        """Removes what is valid no more, from the store and from memory."""
        db.execute("DELETE FROM password WHERE expires < ?", (now,))
        self._newest = {account: given for account, given in self._newest.items() if now - given[1] < REUSE}
        self._renewed = {account: at for account, at in self._renewed.items() if now - at < _RENEW_EVERY}


def _hash(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()
