"""The part of Globus Auth that the public client uses: tokens for client credentials, and who one is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from hub.clients import Client
from hub.scopes import AUTH
from hub.tokens import LIFETIME, Grant, Tokens
from hub.web import ApiError, Json, NotFound, form, path_id


class AuthRoutes:
    """Globus Auth's calls under `/v2/oauth2` and `/v2/api`."""

    def __init__(self, tokens: Tokens, clients: Mapping[str, Client]) -> None:
        self._tokens = tokens
        self._identities = {i.id: i for client in clients.values() for i in client.identities}

    def routes(self) -> list[Route]:
        """Lists the calls."""
        return [
            Route("/v2/oauth2/token", self.token, methods=["POST"]),
            Route("/v2/oauth2/token/revoke", self.revoke, methods=["POST"]),
            Route("/v2/oauth2/userinfo", self.userinfo, methods=["GET"]),
            Route("/v2/api/identities", self.identities, methods=["GET"]),
            Route("/v2/api/identities/{id}/consents", self.consents, methods=["GET"]),
        ]

    async def token(self, request: Request) -> Json:
        """Gives tokens for client id and secret."""
        client = self._tokens.client_of_basic(request)
        asked = await form(request)
        if asked.get("grant_type") != "client_credentials":
            raise ApiError(400, "unsupported_grant_type", "Only client credentials are accepted here")
        first, *others = [_token(grant) for grant in await self._tokens.issue(client, asked.get("scope", "").split())]
        return Json({**first, "other_tokens": others}, headers={"Cache-Control": "no-store"})

    async def revoke(self, request: Request) -> Json:
        """Ends a token; the answer does not tell whether there was one."""
        client = self._tokens.client_of_basic(request)
        await self._tokens.revoke(client, (await form(request)).get("token", ""))
        return Json({"active": False})

    async def userinfo(self, request: Request) -> Json:
        """Tells who the caller is, with all linked identities."""
        client = await self._tokens.caller(request, AUTH)
        main = client.identity
        return Json(
            {
                "sub": main.id,
                "preferred_username": main.username,
                "name": main.name,
                "email": main.email,
                "identity_provider": main.identity_provider,
                "identity_provider_display_name": main.identity_provider_display_name,
                "organization": main.organization,
                "last_authentication": main.last_authentication or int(time.time()),
                "identity_set": [identity.set_entry() for identity in client.identities],
            }
        )

    async def identities(self, request: Request) -> Json:
        """Finds identity records by `ids` or `usernames` (comma-separated); unknown ones are left out."""
        await self._tokens.caller(request, AUTH)
        asked = request.query_params
        ids = [text.strip().lower() for text in asked.get("ids", "").split(",")]
        names = [name.strip() for name in asked.get("usernames", "").split(",")]
        found = [i for i in self._identities.values() if i.id in ids or i.username in names]
        return Json({"identities": [identity.record() for identity in found]})

    async def consents(self, request: Request) -> Json:
        """Lists what the caller's clients have asked for in brackets; of other people's nothing is told."""
        caller = await self._tokens.caller(request, AUTH)
        identity = path_id(request, "identity")
        if not caller.is_one_of(identity):
            raise NotFound("identity", identity)
        return Json({"consents": await self._tokens.consents(caller)})


def _token(grant: Grant) -> dict[str, Any]:
    return {
        "access_token": grant.access_token,
        "scope": grant.scope,
        "expires_in": LIFETIME,
        "token_type": "Bearer",
        "resource_server": grant.resource_server,
    }
