"""The part of Globus Auth that the public client uses: tokens for client credentials and people, and who one is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from hub.callers import Callers
from hub.login.grants import Grants
from hub.login.settings import LoginConfig
from hub.login.signing import ALGORITHM, Signer
from hub.scopes import AUTH
from hub.tokens import Grant, Tokens
from hub.web import ApiError, Json, NotFound, form, path_id

_NO_STORE = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class People:
    """What serves people who log in with a browser, by way of programs that have no secret."""

    config: LoginConfig
    grants: Grants
    signer: Signer


class AuthRoutes:
    """Globus Auth's calls under `/v2/oauth2` and `/v2/api`. people: None where nobody can log in with a browser."""

    def __init__(self, tokens: Tokens, callers: Callers, people: People | None = None) -> None:
        self._tokens = tokens
        self._callers = callers
        self._people = people

    def routes(self) -> list[Route]:
        """Lists the calls."""
        calls = [
            Route("/v2/oauth2/token", self.token, methods=["POST"]),
            Route("/v2/oauth2/token/revoke", self.revoke, methods=["POST"]),
            Route("/v2/oauth2/userinfo", self.userinfo, methods=["GET"]),
            Route("/v2/api/identities", self.identities, methods=["GET"]),
            Route("/v2/api/identities/{id}/consents", self.consents, methods=["GET"]),
        ]
        if self._people is not None:
            calls += [
                Route("/.well-known/openid-configuration", self.discovery, methods=["GET"]),
                Route("/jwk.json", self.keys, methods=["GET"]),
            ]
        return calls

    async def token(self, request: Request) -> Json:
        """Gives tokens for client id and secret, or to a program of a person for a code or a refresh token."""
        if self._people is not None and "authorization" not in request.headers:
            return await self._token_of_person(request, self._people)
        client = await self._tokens.client_of_basic(request)
        asked = await form(request)
        if asked.get("grant_type") != "client_credentials":
            raise ApiError(400, "unsupported_grant_type", "Only client credentials are accepted here")
        first, *others = [_token(grant) for grant in await self._tokens.issue(client, asked.get("scope", "").split())]
        return Json({**first, "other_tokens": others}, headers=_NO_STORE)

    async def _token_of_person(self, request: Request, people: People) -> Json:
        asked = await form(request)
        app = _app(people.config, asked)
        more: dict[str, str] = {}
        if asked.get("grant_type") == "authorization_code":
            issued = await people.grants.exchange(app, asked)
            if "openid" in issued.scope.split():
                more = {"id_token": await people.signer.id_token(app, issued)}
        elif asked.get("grant_type") == "refresh_token":
            issued = await people.grants.refresh(app, asked)
        else:
            raise ApiError(400, "unsupported_grant_type", "Without a secret only codes and refresh tokens are accepted")
        self._tokens.count(request, issued.client)
        first, *others = [_token(grant) for grant in issued.grants]
        return Json({**first, **more, "other_tokens": others}, headers=_NO_STORE)

    async def revoke(self, request: Request) -> Json:
        """Ends a token; the answer does not tell whether there was one."""
        if self._people is not None and "authorization" not in request.headers:
            asked = await form(request)
            await self._people.grants.revoke(_app(self._people.config, asked), asked.get("token", ""))
        else:
            client = await self._tokens.client_of_basic(request)
            await self._tokens.revoke(client, (await form(request)).get("token", ""))
        return Json({"active": False})

    async def discovery(self, request: Request) -> Json:
        """Tells what OpenID Connect has clients look up."""
        assert self._people is not None
        base = self._people.config.url
        return Json(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/v2/oauth2/authorize",
                "token_endpoint": f"{base}/v2/oauth2/token",
                "userinfo_endpoint": f"{base}/v2/oauth2/userinfo",
                "revocation_endpoint": f"{base}/v2/oauth2/token/revoke",
                "jwks_uri": f"{base}/jwk.json",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            }
        )

    async def keys(self, request: Request) -> Json:
        """Shows the key by which our ID tokens are verified."""
        assert self._people is not None
        return Json({"keys": [await self._people.signer.public_key()]})

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
        found = await self._callers.identities(ids, names)
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
        "expires_in": grant.expires_in,
        "token_type": "Bearer",
        "resource_server": grant.resource_server,
        **({} if grant.refresh_token is None else {"refresh_token": grant.refresh_token}),
    }


def _app(config: LoginConfig, asked: Mapping[str, str]) -> str:
    """Returns the id of a program that people may use."""
    app = asked.get("client_id", "").lower()
    if app not in config.apps:
        raise ApiError(401, "invalid_client", "The client id is not known here, or needs a secret")
    return app
