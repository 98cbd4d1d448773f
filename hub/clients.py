"""Who calls: a client credential of hub.yaml, or a person, and the Globus identities that they stand for.

With Globus Auth a credential's identity would be `CLIENT_ID@clients.auth.globus.org`. Here the file says which identity
records a credential stands for, so that a test, or a site without internet, can be alice@example.org.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity record. `status` is Globus Auth's word; managers map only `used` and `private` identities."""

    id: str
    username: str
    email: str
    name: str
    identity_provider: str
    identity_provider_display_name: str
    organization: str
    status: str = "used"
    last_authentication: int | None = None

    def record(self) -> dict[str, Any]:
        """Shows the identity as Globus Auth's `GET /v2/api/identities` does."""
        return {
            "id": self.id,
            "username": self.username,
            "name": self.name,
            "email": self.email,
            "identity_provider": self.identity_provider,
            "organization": self.organization,
            "status": self.status,
        }

    def set_entry(self) -> dict[str, Any]:
        """Makes an entry of `globus_identity_set` in a start command, and of `identity_set` in userinfo."""
        return {
            "sub": self.id,
            "id": self.id,
            "username": self.username,
            "name": self.name,
            "email": self.email,
            "identity_provider": self.identity_provider,
            "status": self.status,
            "identity_provider_display_name": self.identity_provider_display_name,
            "organization": self.organization,
            "last_authentication": self.last_authentication or int(time.time()),
        }


@dataclass(frozen=True, slots=True)
class Client:
    """A client credential, or a person, who has no secret and the id of their identity.

    The first identity is the effective one; the others are linked to it.
    """

    client_id: str
    secret_sha256: bytes | None = field(repr=False)
    identities: tuple[Identity, ...]

    @property
    def identity(self) -> Identity:
        """The effective identity."""
        return self.identities[0]

    def is_secret(self, secret: str) -> bool:
        """Tells whether `secret` is this client's; compares in constant time."""
        digest = hashlib.sha256(secret.encode()).digest()
        return self.secret_sha256 is not None and hmac.compare_digest(digest, self.secret_sha256)

    def is_one_of(self, identity_id: str) -> bool:
        """Tells whether `identity_id` is the effective identity or linked to it."""
        return any(identity.id == identity_id for identity in self.identities)
