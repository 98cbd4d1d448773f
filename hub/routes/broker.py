"""`POST /broker/{user,vhost,resource,topic}`: RabbitMQ asks whether an account may log in, and what it may do.

These are the four questions of RabbitMQ's own plugin `rabbitmq_auth_backend_http`. The answer is a plain `allow` or
`deny`. They need no token: an answer tells nothing but whether a guess of 32 random bytes was right.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hub.amqp import rights
from hub.amqp.passwords import Passwords
from hub.web import form


class BrokerRoutes:
    """`vhost` is the only virtual host that accounts may enter."""

    def __init__(self, passwords: Passwords, vhost: str) -> None:
        self._passwords = passwords
        self._vhost = vhost

    def routes(self) -> list[Route]:
        """Lists the four questions."""
        return [
            Route("/broker/user", self.user, methods=["POST"]),
            Route("/broker/vhost", self.vhost, methods=["POST"]),
            Route("/broker/resource", self.resource, methods=["POST"]),
            Route("/broker/topic", self.topic, methods=["POST"]),
        ]

    async def user(self, request: Request) -> PlainTextResponse:
        """Answers whether this is the account's password."""
        asked = await form(request)
        return _answer(await self._passwords.is_valid(asked.get("username", ""), asked.get("password", "")))

    async def vhost(self, request: Request) -> PlainTextResponse:
        """Answers whether the account may enter this virtual host."""
        asked = await form(request)
        return _answer(asked.get("vhost") == self._vhost and self._passwords.exists(asked.get("username", "")))

    async def resource(self, request: Request) -> PlainTextResponse:
        """Answers whether the account may use this queue or exchange."""
        asked = await form(request)
        account, kind, name, permission = (asked.get(k, "") for k in ("username", "resource", "name", "permission"))
        return _answer(asked.get("vhost") == self._vhost and rights.may(account, kind, name, permission))

    async def topic(self, request: Request) -> PlainTextResponse:
        """Answers whether the account may use this routing key."""
        asked = await form(request)
        account, name, permission, key = (asked.get(k, "") for k in ("username", "name", "permission", "routing_key"))
        return _answer(asked.get("vhost") == self._vhost and rights.may_publish(account, name, permission, key))


def _answer(allowed: bool) -> PlainTextResponse:
    return PlainTextResponse("allow" if allowed else "deny")
