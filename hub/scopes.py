"""The text that a client asks for at a login (`scope`): which scopes it names, and whose resource servers they are.

A client asks for all services that it uses at one login, and looks its token up by the name of the resource server. So
each scope that has one of Globus Auth's forms gets a token, whatever service it belongs to: where no such service
stands behind it, the token is good for nothing.

    openid                                                          a word of OpenID Connect
    urn:globus:auth:scope:transfer.api.globus.org:all               by the name of the resource server
    https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all   by its name or client id
    urn:globus:auth:scope:transfer.api.globus.org:all[*COLLECTION/data_access]   with what that service may ask for

What is in brackets is for a service that acts for the user elsewhere; it has no token of its own. A `*` (optional) is
about what the user may decline.
"""

from __future__ import annotations

import re

from hub.web import ApiError

COMPUTE = "funcx_service"
AUTH = "auth.globus.org"
MANAGE_PROJECTS = f"urn:globus:auth:scope:{AUTH}:manage_projects"

MOST_SCOPES = 50
"""That are asked for at once: each resource server is a token."""
DEEPEST = 8
"""Brackets in each other."""
LONGEST_SCOPE = 256

_RESOURCE_SERVERS = {
    "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all": COMPUTE,
    "openid": AUTH,
    "profile": AUTH,
    "email": AUTH,
}
"""Of scopes that do not name their resource server."""
_CLIENT_IDS = {"eec9b274-0c81-4334-bdc2-54e90e689b9a": "flows.globus.org", "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9": None}
"""Whose scopes have a client id where clients look for another name; None: which has no scopes but those above."""

_SERVER = r"((?:[a-z0-9-]+\.)+[a-z0-9-]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
_SCOPE = re.compile(
    rf"(?:urn:globus:auth:scope:{_SERVER}:|https://auth\.globus\.org/scopes/{_SERVER}/)[\w.:-]+", re.ASCII
)
_PART = re.compile(r"[\[\] ]|[^\[\] ]+")


def by_resource_server(text: str) -> dict[str, list[str]]:
    """Sorts the scopes of a login by their resource server.

    Raises:
        ApiError: 400 for none, too many, or what is no scope.
    """
    found: dict[str, list[str]] = {}
    for path in paths(text):
        if len(path) == 1:
            found.setdefault(_resource_server(path[0]), []).append(path[0])
    if not found:
        raise _invalid("No scope was asked for")
    return found


def paths(text: str) -> list[tuple[str, ...]]:
    """Lists all scopes without their `*`, each as the end of the path of those in whose brackets it is.

    Raises:
        ApiError: 400 for too many, or what is no scope.
    """
    found: dict[tuple[str, ...], None] = {}
    above: list[str] = []
    scope, before = "", " "
    for part in _PART.findall(" ".join(text.split())):
        is_scope = part not in ("[", "]", " ")
        follows = {"[": before not in "[] ", "]": before not in "[ " and above, " ": before != "["}
        if not follows.get(part, before in "[ "):
            raise _invalid(f"The scopes do not have the form 'a b[c *d]' at {part[:LONGEST_SCOPE]!r}")
        if is_scope:
            scope = part.removeprefix("*")
            _resource_server(scope)
            path = (*above, scope)
            found[path] = None
        elif part == "[":
            above.append(scope)
        elif part == "]":
            above.pop()
        if len(above) > DEEPEST or len(found) > MOST_SCOPES:
            raise _invalid(
                f"More than {MOST_SCOPES} scopes were asked for at once, or {DEEPEST} brackets in each other"
            )
        before = "a" if is_scope else part
    if above:
        raise _invalid("The scopes have a bracket without its other half")
    return list(found)


def _resource_server(scope: str) -> str:
    if scope in _RESOURCE_SERVERS:
        return _RESOURCE_SERVERS[scope]
    form = _SCOPE.fullmatch(scope) if len(scope) <= LONGEST_SCOPE else None
    named = form[1] or form[2] if form else None
    server = _CLIENT_IDS.get(named.lower(), named) if named else None
    if server is None:
        raise _invalid(f"Scope {scope[:LONGEST_SCOPE]!r} is not known here")
    return server


def _invalid(text: str) -> ApiError:
    return ApiError(400, "invalid_scope", text)
