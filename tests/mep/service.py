"""A Compute service that answers as it is told, for one test: a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

SCOPES = {
    "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all": "funcx_service",
    "openid": "auth.globus.org",
}

VERSION = {"api": "1.0.28", "min_ep_version": "4.0.0", "min_sdk_version": "4.0.0"}
"""The answer to the question for the service's version."""


def tokens(scopes: Iterable[str]) -> dict[str, Any]:
    """The answer to the question for tokens of these scopes."""
    first, *others = [
        {
            "access_token": f"token-of-{server}",
            "scope": scope,
            "resource_server": server,
            "expires_in": 3600,
            "token_type": "Bearer",
        }
        for scope, server in SCOPES.items()
        if scope in scopes
    ]
    return {**first, "other_tokens": others}


@dataclass
class Service:
    """What it is asked, and what it says to all but the questions for tokens and for its version.

    no_tokens: what it says to the first instead, when it is not to give any. version: the answer to the second; that
    and the question are as all others when this is None.
    """

    status: int = 200
    answer: Any = None
    no_tokens: tuple[int, Any] | None = None
    version: Any = field(default_factory=lambda: dict(VERSION))
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def start(self, port: int = 0) -> ThreadingHTTPServer:
        """The server, which answers until it is shut down."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/v2/oauth2/token" and service.no_tokens is not None:
                    self.say(*service.no_tokens)
                    return
                if self.path == "/v2/oauth2/token":
                    self.say(200, tokens(parse_qs(body.decode())["scope"][0].split()))
                    return
                if self.path.partition("?")[0] == "/v2/version" and service.version is not None:
                    self.say(200, service.version)
                    return
                service.requests.append((self.command, self.path, json.loads(body) if body else None))
                service.headers.append(dict(self.headers))
                self.say(service.status, service.answer)

            do_GET = do_POST = do_PUT = answer

            def say(self, status: int, answer: Any) -> None:
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server
