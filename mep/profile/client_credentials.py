"""`ClientCredentials`: what an endpoint is registered with when nobody has logged in. The reader finds them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClientCredentials:
    """A client of Globus Auth, and its secret."""

    client_id: str
    secret: str = field(repr=False)
