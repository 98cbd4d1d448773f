"""From what a provider says of a person to identity records.

A username decides who becomes which account. So it must come from where people cannot choose it freely, and is taken
only in the form that hub.yaml names: without a domain, which is added here, or with one of the site's, in which case an
e-mail address must be one that the provider has verified.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from hub.clients import Identity
from hub.login.settings import LoginConfig

LONGEST = 255
"""Characters of a claim."""
MOST_LINKED = 20
_LOCAL = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}", re.ASCII)


class NotAllowed(Exception):
    """This person has no place here; the text says why, for them to read."""


def identity_id(config: LoginConfig, subject: str) -> str:
    """Makes the id of who is `subject` at the provider: the same for ever, whatever they are called."""
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, config.issuer), subject))


def identities(config: LoginConfig, claims: Mapping[str, Any], authenticated_at: int) -> tuple[Identity, ...]:
    """Makes the records of a person, the effective one first.

    Raises:
        NotAllowed: the provider's claims have no username that is taken here.
    """
    names = config.claims
    main = _username(config, claims, claims.get(names.username), names.username)
    linked = claims.get(names.linked, []) if names.linked else []
    if not isinstance(linked, list) or len(linked) > MOST_LINKED:
        raise NotAllowed(f"The claim {names.linked!r} of your login is no list of at most {MOST_LINKED} usernames")
    others = dict.fromkeys(_username(config, claims, each, str(names.linked)) for each in linked)
    others.pop(main, None)

    def record(which: str, username: str) -> Identity:
        return Identity(
            id=which,
            username=username,
            email=_text(claims, names.email) or username,
            name=_text(claims, names.name) or username.partition("@")[0],
            identity_provider=config.identity_provider,
            identity_provider_display_name=config.name,
            organization=_text(claims, names.organization) if names.organization else "",
            last_authentication=authenticated_at,
        )

    more = tuple(record(identity_id(config, f"username:{each}"), each) for each in others)
    return (record(identity_id(config, str(claims["sub"])), main), *more)


def _username(config: LoginConfig, claims: Mapping[str, Any], value: object, claim: str) -> str:
    """Makes a username with domain of what a claim says."""
    if not isinstance(value, str) or not value:
        raise NotAllowed(f"Your login has no claim {claim!r}, which is to have your username")
    text = value.lower()
    if config.domain is not None:
        if not _LOCAL.fullmatch(text):
            raise NotAllowed("Your username is not taken here: it has other characters than a-z, 0-9 and ._+-")
        return f"{text}@{config.domain}"
    local, _, domain = text.rpartition("@")
    if domain not in config.domains:
        raise NotAllowed("Your username is not of a domain that is taken here")
    if not _LOCAL.fullmatch(local):
        raise NotAllowed("Your username is not taken here: it has other characters than a-z, 0-9 and ._+-")
    if claim == "email" and claims.get("email_verified") is not True:
        raise NotAllowed("Your e-mail address is not verified by the provider of your login")
    return text


def _text(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    return value[:LONGEST] if isinstance(value, str) and value.isprintable() else ""
