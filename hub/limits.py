"""How many bytes a request may have, and how many requests a client: asked before anything of a body is parsed.

JSON and forms take twenty times their size once they are Python's values, and nobody else is served while they are
read. A client that sends more requests than it may is told to come back (HTTP 429), which the public client does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from hub.web import TooLarge, TooMany

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BODY_BYTES = 12 * 2**20
"""Of a REST call: what the public client sends at most (10 MB of arguments), and a little more."""
FORM_BYTES = 64 * 2**10
"""Of a form: a login, or a question of the broker."""
_FORMS = ("/broker/", "/v2/oauth2/", "/login", "/logout", "/page/")
PIECE_BYTES = 64 * 2**10
"""Of an answer: the next piece is written once the client has taken most of the one before."""


_CLIENT = "hub.client"
"""Where a request's scope names the client that it is counted for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may have: `limits` of hub.yaml."""

    requests_at_once: int = 32
    requests_per_minute: int = 6000
    tasks_waiting: int = 100_000
    user_endpoints: int = 1000
    endpoints: int = 1000
    functions: int = 10_000
    task_groups: int = 5000


class Turns:
    """Counts the requests of each client: those under way, and those of the last time."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._under_way: Counter[str] = Counter()
        self._left: dict[str, tuple[float, float]] = {}

    def begin(self, scope: MutableMapping[str, Any], client: str) -> None:
        """Counts the request for a client, as soon as it is known.

        Raises:
            TooMany: it has too many under way, or has sent too many lately.
        """
        if _CLIENT in scope:
            return
        if self._under_way[client] >= self._limits.requests_at_once:
            raise TooMany(f"More than {self._limits.requests_at_once} of your requests are under way; try again soon")
        now, most = time.monotonic(), self._limits.requests_per_minute
        left, at = self._left.get(client, (most, now))
        left = min(most, left + (now - at) * most / 60)
        if left < 1:
            self._left[client] = left, now
            raise TooMany(f"You have sent more than {most} requests in a minute; try again soon")
        self._left[client] = left - 1, now
        self._under_way[client] += 1
        scope[_CLIENT] = client

    def end(self, scope: MutableMapping[str, Any]) -> None:
        """The request is over, however."""
        client = scope.pop(_CLIENT, None)
        if client is not None:
            self._under_way[client] -= 1


class LimitedRequests:
    """An ASGI application in front of another, which sees no body that is too large, and tells when a turn ends."""

    def __init__(self, app: App, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            most = FORM_BYTES if scope["path"].startswith(_FORMS) else BODY_BYTES
            receive = _limited(receive, dict(scope["headers"]).get(b"content-length", b"0"), most)
            send = _in_pieces(send)
        try:
            await self._app(scope, receive, send)
        finally:
            self._turns.end(scope)


def _in_pieces(send: Send) -> Send:
    """Wraps `send` so that the turn goes on until the client has taken nearly all of a large answer."""

    async def piecewise(message: Message) -> None:
        body = message.get("body", b"")
        if len(body) > PIECE_BYTES:
            last = (len(body) - 1) // PIECE_BYTES * PIECE_BYTES
            for start in range(0, last, PIECE_BYTES):
                await send({**message, "body": body[start : start + PIECE_BYTES], "more_body": True})
            message = {**message, "body": body[last:]}
        await send(message)

    return piecewise


def _limited(receive: Receive, declared: bytes, most: int) -> Receive:
    """Wraps `receive` so that it raises TooLarge, which the application answers like its own errors."""
    left = most
    refused = declared.isdigit() and int(declared) > most

    async def limited() -> Message:
        nonlocal left
        if not refused:
            message = await receive()
            left -= len(message.get("body", b""))
            if left >= 0:
                return message
        raise TooLarge(f"The body is larger than {most} bytes, the most that is taken here")

    return limited
