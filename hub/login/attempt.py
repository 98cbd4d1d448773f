"""A login that has begun: a cookie of the browser that began it, from which all else is derived.

So whoever comes back from the provider without the cookie, or with that of another attempt, is refused; and visitors
who are not known yet cost the hub no memory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

LIFETIME = 600
"""Seconds for a person to log in at the provider."""
LONGEST = 3000
"""Characters of where to go afterwards; a browser keeps cookies of 4096."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """`then` is a path of the hub, with its query."""

    secret: str = field(repr=False)
    then: str

    @property
    def state(self) -> str:
        """What comes back with the browser."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """What comes back in what the provider signs."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """What only the hub says to the provider (PKCE)."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """What the provider compares the verifier with."""
        return s256(self.verifier)

    def cookie(self) -> str:
        """Writes it as the value of a cookie."""
        return f"{self.secret}.{base64.urlsafe_b64encode(self.then.encode()).decode().rstrip('=')}"

    def _derived(self, what: str) -> str:
        return _text(hmac.digest(self.secret.encode(), what.encode(), "sha256"))


def begin(then: str) -> Attempt:
    """Begins an attempt; where `then` leads elsewhere, it is `/`."""
    return Attempt(secrets.token_urlsafe(32), then if is_ours(then) and len(then) <= LONGEST else "/")


def of_cookie(value: str) -> Attempt | None:
    """Reads what `cookie` has written; None when it is none."""
    secret, _, encoded = value.partition(".")
    try:
        then = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return None
    return Attempt(secret, then) if len(secret) >= 40 and is_ours(then) else None


def is_ours(then: str) -> bool:
    """Tells whether a browser takes this for a path of the hub, and not for another host."""
    return then.startswith("/") and not then.startswith(("//", "/\\")) and then.isascii() and then.isprintable()


def s256(verifier: str) -> str:
    """Makes the challenge of PKCE's method S256."""
    return _text(hashlib.sha256(verifier.encode()).digest())


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
