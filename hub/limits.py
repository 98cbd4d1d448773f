"""How many bytes a request may have: asked for before anything of it is parsed, whoever asks.

JSON and forms take twenty times their size once they are Python's values, and nobody else is served while they are
read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hub.web import TooLarge

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BODY_BYTES = 12 * 2**20
"""Of a REST call: what the public client sends at most (10 MB of arguments), and a little more."""
FORM_BYTES = 64 * 2**10
"""Of a form: a login, or a question of the broker."""
_FORMS = ("/broker/", "/v2/oauth2/")


class LimitedBodies:
    """An ASGI application in front of another, which sees no body that is too large."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            most = FORM_BYTES if scope["path"].startswith(_FORMS) else BODY_BYTES
            receive = _limited(receive, dict(scope["headers"]).get(b"content-length", b"0"), most)
        await self._app(scope, receive, send)


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
