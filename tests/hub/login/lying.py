"""A provider of logins that lies as a test tells it: everything that it says can be replaced. On loopback, in a thread.

A real one does not lie; that one is `lab.provider`.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.login.settings import LoginConfig

CLIENT_ID = "mep-hub"
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


class LyingProvider:
    """`claims` of the ID token, `discovery`, `userinfo` and `key` are what is said; change them before it is asked."""

    def __init__(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.provider = self  # type: ignore[attr-defined]
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.discovery: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_response_iss_parameter_supported": True,
        }
        now = int(time.time())
        self.claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": "alice-1",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "auth_time": now,
        }
        self.userinfo: dict[str, Any] = {"sub": "alice-1", "preferred_username": "alice"}
        self.key: Any = KEY
        self.keys: object = None
        """What is said at the place of the keys, if not `KEY`."""
        self.algorithm = "RS256"
        self.headers: dict[str, Any] = {"kid": "one"}
        self.status = 200
        self.statuses: dict[str, int] = {}
        """Of single paths."""
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def config(self, **more: Any) -> LoginConfig:
        """What hub.yaml would say about it."""
        return LoginConfig(
            **{
                "url": "http://localhost:5000",
                "issuer": self.issuer,
                "client_id": CLIENT_ID,
                "client_secret": "s3cr:t",
                "name": "Example",
                "identity_provider": "85453953-8e33-5ac9-97a8-bdff5c84320a",
                "domain": "example.org",
                "domains": frozenset[str](),
                **more,
            }
        )

    def answer(self, path: str) -> object:
        """What is said at `path`."""
        if path == "/.well-known/openid-configuration":
            return self.discovery
        if path == "/jwks" and self.keys is not None:
            return self.keys
        if path == "/jwks":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            return {"keys": [{**public, "kid": "one", "use": "sig"}]}
        if path == "/token":
            token = jwt.encode(self.claims, self.key, self.algorithm, headers=self.headers)
            return {"id_token": token, "access_token": "opaque", "token_type": "Bearer"}
        return self.userinfo


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._say({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._say({key: values[0] for key, values in parse_qs(body).items()})

    def log_message(self, *_: Any) -> None:
        pass

    def _say(self, form: dict[str, str]) -> None:
        provider: LyingProvider = self.server.provider  # type: ignore[attr-defined]
        provider.asked.append((self.path, form, dict(self.headers)))
        body = json.dumps(provider.answer(self.path)).encode()
        status = provider.statuses.get(self.path, provider.status)
        self.send_response(status)
        if status in (302, 307):
            self.send_header("Location", f"{provider.issuer}/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
