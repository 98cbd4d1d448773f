"""`login` of hub.yaml as a value; `hub.config` reads it, docs/hub.md describes it."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hub.clients import Identity

COMPUTE_APP = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
"""Under which the public client, `mep` and the public endpoint log people in."""
APPS: Mapping[str, str] = {COMPUTE_APP: "Globus Compute"}
MAX_AGE_DAYS = 30


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Where the provider says what an identity record has. `linked` may be a list of further usernames."""

    username: str = "preferred_username"
    email: str = "email"
    name: str = "name"
    organization: str | None = None
    linked: str | None = None


@dataclass(frozen=True, slots=True)
class LoginConfig:
    """`url` is where browsers reach the hub, without a slash at the end; `max_age` is in seconds.

    With `domain`, a username of the provider has no domain and gets this one; else it must have one of `domains`.
    `apps` are names by client id; `linked` has more identities by username.
    """

    url: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str
    identity_provider: str
    domain: str | None
    domains: frozenset[str]
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    claims: ClaimNames = ClaimNames()
    max_age: float = MAX_AGE_DAYS * 86400.0
    ca: Path | None = None
    apps: Mapping[str, str] = field(default_factory=lambda: APPS)
    linked: Mapping[str, tuple[Identity, ...]] = field(default_factory=dict)

    @property
    def return_url(self) -> str:
        """Where the provider sends a browser back to; it has to know this address."""
        return f"{self.url}/login/return"

    @property
    def code_url(self) -> str:
        """The page that shows a code: what the public client names as its `redirect_uri`."""
        return f"{self.url}/v2/web/auth-code"


def provider_id(issuer: str) -> str:
    """Makes the id of a provider in identity records, for a site that names none."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, issuer))


def is_loopback(host: str) -> bool:
    """Tells whether an address, or a name, is this host's own, which nobody else reads."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
