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
from hub.web import ApiError, form


class BrokerRoutes:
    """`vhost` is the only virtual host that accounts may enter; it is asked for at `port` only."""

    def __init__(self, passwords: Passwords, vhost: str, port: int) -> None:
        self._passwords = passwords
        self._vhost = vhost
        self._port = port

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
        asked = await self._asked(request)
        return _answer(await self._passwords.is_valid(asked.get("username", ""), asked.get("password", "")))

    async def vhost(self, request: Request) -> PlainTextResponse:
        """Answers whether the account may enter this virtual host."""
        asked = await self._asked(request)
        return _answer(asked.get("vhost") == self._vhost and await self._passwords.exists(asked.get("username", "")))

    async def resource(self, request: Request) -> PlainTextResponse:
        """Answers whether the account may use this queue or exchange."""
        asked = await self._asked(request)
        account, kind, name, permission = (asked.get(k, "") for k in ("username", "resource", "name", "permission"))
        return _answer(asked.get("vhost") == self._vhost and rights.may(account, kind, name, permission))

    async def topic(self, request: Request) -> PlainTextResponse:
        """Answers whether the account may use this routing key."""
        asked = await self._asked(request)
        account, name, permission, key = (asked.get(k, "") for k in ("username", "name", "permission", "routing_key"))
        return _answer(asked.get("vhost") == self._vhost and rights.may_publish(account, name, permission, key))

    async def _asked(self, request: Request) -> dict[str, str]:
        """Reads a question.

        Raises:
            ApiError: 404 at the port of the REST calls.
        """
        if request.scope["server"][1] != self._port:
            raise ApiError(404, "NOT_FOUND", "The broker's questions are answered at a port of their own")
        return await form(request)


def _answer(allowed: bool) -> PlainTextResponse:
    return PlainTextResponse("allow" if allowed else "deny")
