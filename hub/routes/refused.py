"""Calls of the service that clients know and this hub does not serve: each is answered with its reason.

Anything else that is not there is a plain 404. `docs/hub-api.md` lists all calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.routing import Route

from hub.web import ApiError, Json

_CONTAINERS = "Containers are not registered any more: an endpoint's configuration says in which one its workers run"
_WHITELIST = "The functions that an endpoint runs are set in its configuration (allowed_functions)"
_AUTH = "This service is not Globus Auth: whoever runs it says who may log in, and who is who"
_OTHERS = "There are no other services here that act for the users of this one, or are shown its tokens"

REFUSED = {
    ("POST", "/v2/containers"): (410, _CONTAINERS),
    ("POST", "/v2/containers/build"): (410, _CONTAINERS),
    ("GET", "/v2/containers/build/{id}"): (410, _CONTAINERS),
    ("GET", "/v2/containers/{id}/{type}"): (410, _CONTAINERS),
    ("GET", "/v2/endpoints/{id}/whitelist"): (410, _WHITELIST),
    ("POST", "/v2/endpoints/{id}/whitelist"): (410, _WHITELIST),
    ("DELETE", "/v2/endpoints/{id}/whitelist/{function}"): (410, _WHITELIST),
    ("GET", "/.well-known/openid-configuration"): (501, "This service gives no identity tokens"),
    ("POST", "/v2/oauth2/token/introspect"): (501, _OTHERS),
    ("GET", "/v2/api/identity_providers"): (501, _AUTH),
    ("GET", "/v2/api/clients"): (501, _AUTH),
    ("POST", "/v2/api/clients"): (501, _AUTH),
    ("GET", "/v2/api/clients/{id}"): (501, _AUTH),
    ("PUT", "/v2/api/clients/{id}"): (501, _AUTH),
    ("DELETE", "/v2/api/clients/{id}"): (501, _AUTH),
    ("GET", "/v2/api/clients/{id}/credentials"): (501, _AUTH),
    ("POST", "/v2/api/clients/{id}/credentials"): (501, _AUTH),
    ("DELETE", "/v2/api/clients/{id}/credentials/{credential}"): (501, _AUTH),
    ("POST", "/v2/api/clients/{id}/scopes"): (501, _OTHERS),
    ("GET", "/v2/api/scopes"): (501, _OTHERS),
    ("GET", "/v2/api/scopes/{id}"): (501, _OTHERS),
    ("PUT", "/v2/api/scopes/{id}"): (501, _OTHERS),
    ("DELETE", "/v2/api/scopes/{id}"): (501, _OTHERS),
}
"""Status and reason by method and path."""


def routes() -> list[Route]:
    """Lists the calls; they need no token."""
    return [
        Route(path, _refusal(status, reason), methods=[method]) for (method, path), (status, reason) in REFUSED.items()
    ]


def _refusal(status: int, reason: str) -> Callable[[Request], Awaitable[Json]]:
    async def refuse(request: Request) -> Json:
        raise ApiError(status, "GONE" if status == 410 else "NOT_IMPLEMENTED", reason)

    return refuse
