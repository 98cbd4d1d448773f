"""The hub's own ID tokens: the public client verifies them to see who has logged in, with a key that it asks for.

Nothing here believes such a token. All hub processes sign with one key, which is in the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from hub.login.grants import Issued
from hub.store import tables
from hub.store.store import Store

ALGORITHM = "RS256"
"""The public client knows RSA only."""
LIFETIME = 600
_BITS = 2048


class Signer:
    """Signs by `issuer`, the hub's own address."""

    def __init__(self, store: Store, issuer: str) -> None:
        self._store = store
        self._issuer = issuer
        self._key: rsa.RSAPrivateKey | None = None

    async def id_token(self, app: str, issued: Issued) -> str:
        """Tells program `app` who has logged in."""
        key = await self._known_key()
        main, now = issued.client.identity, int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": app,
            "sub": main.id,
            "iat": now,
            "exp": now + LIFETIME,
            "auth_time": int(issued.authenticated_at),
            "preferred_username": main.username,
            "name": main.name,
            "email": main.email,
            "organization": main.organization,
            "identity_provider": main.identity_provider,
            "identity_provider_display_name": main.identity_provider_display_name,
        }
        return jwt.encode(claims, key, ALGORITHM, headers={"kid": _key_id(key)})

    async def public_key(self) -> dict[str, Any]:
        """Shows the key by which others verify, as a JWK."""
        key = await self._known_key()
        shown: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        return {**shown, "kid": _key_id(key), "use": "sig", "alg": ALGORITHM}

    async def _known_key(self) -> rsa.RSAPrivateKey:
        if self._key is None:
            query = select(tables.signing_key.c.pem)
            row = await self._store.one(query)
            if row is None:
                new = _pem(await asyncio.to_thread(rsa.generate_private_key, 65537, _BITS))

                with contextlib.suppress(IntegrityError):  # another process was first
                    await self._store.execute(insert(tables.signing_key).values(id=1, pem=new))
                row = await self._store.one(query)
            assert row is not None
            key = serialization.load_pem_private_key(row.pem.encode(), None)
            assert isinstance(key, rsa.RSAPrivateKey)
            self._key = key
        return self._key


def _pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _key_id(key: rsa.RSAPrivateKey) -> str:
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()[:16]
