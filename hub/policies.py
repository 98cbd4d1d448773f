"""Authentication policies: whose identities an endpoint lets in, and how recently they must have logged in.

A policy belongs to a project, whose admins may change it. Whoever registers an endpoint names a policy of a project of
theirs; at each submission the hub asks whether the caller satisfies it. What the hub cannot enforce (high assurance,
multi-factor authentication) is refused when the policy is made. The forms are those of Globus Auth.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hub.clients import Client, Identity
from hub.web import Forbidden, Invalid, NeedsLogin, field, uuid_field

LONGEST_NAME = 255
"""Characters of a name or an address."""
LONGEST_DESCRIPTION = 4096
MOST_ADMINS = 50
"""Of a project."""
MOST_DOMAINS = 100
"""Of a list of a policy."""
LONGEST_TIMEOUT = 10 * 365 * 86400

_DOMAIN = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_MAPPED = ("used", "private")
"""The status of identities that managers map."""


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """What a project is made with."""

    display_name: str
    contact_email: str
    admin_ids: list[str]


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """What a policy is made with. A list of domains that is None or empty constrains nothing."""

    project_id: str
    display_name: str
    description: str
    domain_constraints_include: list[str] | None = None
    domain_constraints_exclude: list[str] | None = None
    authentication_assurance_timeout: int | None = None

    def shown(self, policy_id: str) -> dict[str, Any]:
        """Shows the policy as Globus Auth does."""
        return {"id": policy_id, **asdict(self), "high_assurance": False, "required_mfa": False}

    def admits(self, identity: Identity) -> bool:
        """Tells whether the identity is of a domain that is included and not excluded."""
        domain = identity.username.rpartition("@")[2].lower()
        return (
            identity.status in _MAPPED
            and (not self.domain_constraints_include or _is_in(domain, self.domain_constraints_include))
            and not _is_in(domain, self.domain_constraints_exclude or ())
        )


def check(policy_id: str, policy: PolicyRecord, caller: Client) -> None:
    """Holds a caller to a policy: one identity has to satisfy all of it.

    Raises:
        Forbidden, NeedsLogin: none does, or does after another login only.
    """
    admitted = [identity for identity in caller.identities if policy.admits(identity)]
    name = f"the authentication policy {policy.display_name!r} of this endpoint"
    if not admitted:
        raise Forbidden(f"None of your identities is of a domain that {name} admits")
    most = policy.authentication_assurance_timeout
    if most is not None and all(_age(identity, caller) > most for identity in admitted):
        text = f"Your last login was more than {most} seconds ago, the most that {name} allows; log in again"
        raise NeedsLogin("AUTHENTICATION_POLICY_NOT_MET", text, session_required_policies=[policy_id], prompt="login")


def decode_project(body: Mapping[str, Any], known: ProjectRecord | None = None) -> ProjectRecord:
    """Reads the body that makes a project, or changes what `known` has.

    Raises:
        Invalid: it does not fit; the text names the field.
    """
    said = field(body, "project", dict)
    if field(said, "admin_group_ids", list, None):
        raise Invalid("admin_group_ids: there are no groups here; name the admins by admin_ids")
    admins = field(said, "admin_ids", list, known.admin_ids if known else [])
    if not 0 < len(admins) <= MOST_ADMINS:
        raise Invalid(f"admin_ids: expected from one to {MOST_ADMINS} ids of identities (your own: userinfo, `sub`)")
    return ProjectRecord(
        display_name=_text(said, "display_name", known.display_name if known else None, LONGEST_NAME),
        contact_email=_text(said, "contact_email", known.contact_email if known else None, LONGEST_NAME),
        admin_ids=list(dict.fromkeys(uuid_field(_stripped(each), "admin_ids") for each in admins)),
    )


def decode_policy(body: Mapping[str, Any], known: PolicyRecord | None = None) -> PolicyRecord:
    """Reads the body that makes a policy, or changes what `known` has; what is null constrains nothing any more.

    Raises:
        Invalid: it does not fit, or cannot be enforced; the text names the field.
    """
    said = field(body, "policy", dict)
    for unenforced in ("high_assurance", "required_mfa"):
        if field(said, unenforced, bool, False):
            raise Invalid(f"{unenforced}: this service cannot enforce it")
    project = said.get("project_id", known.project_id if known else None)
    return PolicyRecord(
        project_id=uuid_field(project, "project_id"),
        display_name=_text(said, "display_name", known.display_name if known else None, LONGEST_NAME),
        description=_text(said, "description", known.description if known else None, LONGEST_DESCRIPTION),
        domain_constraints_include=_domains(said, "domain_constraints_include", known),
        domain_constraints_exclude=_domains(said, "domain_constraints_exclude", known),
        authentication_assurance_timeout=_timeout(said, known),
    )


def _is_in(domain: str, patterns: Sequence[str]) -> bool:
    """Tells whether one of the patterns is the domain, or as `*.DOMAIN` a domain above it."""
    return any(domain.endswith(each[1:]) if each.startswith("*.") else domain == each for each in patterns)


def _age(identity: Identity, caller: Client) -> float:
    """Returns the seconds since the identity's last login, or since its owner's when nothing is known of its own.

    Where nothing is known of that, either, it is a client credential, which logs in with each token: 0.
    """
    last = identity.last_authentication or caller.identity.last_authentication
    return 0.0 if last is None else max(0.0, time.time() - last)


def _text(said: Mapping[str, Any], key: str, default: str | None, longest: int) -> str:
    text = field(said, key, str, ... if default is None else default)
    if not text.strip() or len(text) > longest:
        raise Invalid(f"{key}: expected a text of at most {longest} characters")
    return str(text)


def _domains(said: Mapping[str, Any], key: str, known: PolicyRecord | None) -> list[str] | None:
    if key not in said:
        kept: list[str] | None = getattr(known, key) if known else None
        return kept
    listed = field(said, key, list, None)
    if listed is None:
        return None
    if len(listed) > MOST_DOMAINS:
        raise Invalid(f"{key}: expected at most {MOST_DOMAINS} domains")
    domains = [_stripped(each).lower() if isinstance(each, str) else "" for each in listed]
    for domain in domains:
        if len(domain) > LONGEST_NAME or not _DOMAIN.fullmatch(domain):
            raise Invalid(f"{key}: expected domains such as example.org or *.example.org, got {domain[:64]!r}")
    return list(dict.fromkeys(domains))


def _timeout(said: Mapping[str, Any], known: PolicyRecord | None) -> int | None:
    key = "authentication_assurance_timeout"
    if key not in said:
        return known.authentication_assurance_timeout if known else None
    seconds: int | None = field(said, key, int, None)
    if seconds is not None and (type(seconds) is not int or not 0 < seconds <= LONGEST_TIMEOUT):
        raise Invalid(f"{key}: expected seconds from 1 to {LONGEST_TIMEOUT}")
    return seconds


def _stripped(text: Any) -> Any:
    """The public tool splits what is typed at commas and leaves the blanks."""
    return text.strip() if isinstance(text, str) else text
