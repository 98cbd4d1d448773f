"""What a program asks for when it sends a person here (`/v2/oauth2/authorize`), and when they have agreed.

Programs are public clients: they have no secret, so a code is bound to a challenge of theirs (PKCE, S256 only), and
there is one page where it goes, which is ours and shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hub.login.settings import LoginConfig
from hub.scopes import by_resource_server
from hub.web import ApiError
from wire.printable import printable

LONGEST_LABEL = 100
"""Characters of what a program says it is called."""
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
FIELDS = (
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "access_type",
    "prefill_named_grant",
)
"""What is read of the address, and carried by the form of the consent."""


class NotUnderstood(Exception):
    """A program asks for what it cannot have; the text says what to do, for whoever has started it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`scopes` are by resource server; offline: refresh tokens, too; `label` is what the program calls itself."""

    app: str
    app_name: str
    redirect_uri: str
    challenge: str
    scope: str
    scopes: Mapping[str, list[str]]
    offline: bool
    label: str


def decode(config: LoginConfig, asked: Mapping[str, str]) -> Asked:
    """Reads the query of the address, or the form of the consent.

    Raises:
        NotUnderstood: it does not fit.
    """
    app = asked.get("client_id", "").lower()
    name = config.apps.get(app)
    if name is None:
        raise NotUnderstood("The program that has sent you here is not known. An admin can name it in hub.yaml.")
    redirect_uri = asked.get("redirect_uri", "")
    if redirect_uri != config.code_url:
        raise NotUnderstood(
            "The program that has sent you here wants the code to be sent to an address that is not this hub's."
            f" Set GLOBUS_SDK_SERVICE_URL_AUTH={config.url}/ in its environment."
        )
    if asked.get("response_type") != "code":
        raise NotUnderstood("The program that has sent you here does not ask for a code, and there is nothing else.")
    challenge = asked.get("code_challenge", "")
    if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise NotUnderstood("The program that has sent you here does not protect the code (PKCE with S256).")
    scope = " ".join(asked.get("scope", "").split())
    try:
        scopes = by_resource_server(scope)
    except ApiError as e:
        raise NotUnderstood(f"What the program asks for is not understood. {e}") from None
    return Asked(
        app=app,
        app_name=name,
        redirect_uri=redirect_uri,
        challenge=challenge,
        scope=scope,
        scopes=scopes,
        offline=asked.get("access_type") == "offline",
        label=printable(asked.get("prefill_named_grant", ""), LONGEST_LABEL),
    )
