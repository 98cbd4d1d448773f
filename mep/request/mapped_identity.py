"""`MappedIdentity`: whom a requester is mapped to, and what is said when that is nobody. Made by `mapper`."""

from __future__ import annotations

from dataclasses import dataclass

from mep.request.refusal import Refused
from mep.request.start_endpoint import StartEndpoint


@dataclass(frozen=True)
class MappedIdentity:
    """The identity that decided, the user name it maps to, and the rule that says so.

    candidates: one list per document of {identity: [names]}, as user endpoints report it in their heartbeats.
    """

    username: str
    identity: str
    rule: str
    candidates: list[list[dict[str, list[str]]]]


def nobody(command: StartEndpoint, why: str) -> Refused:
    """The documents give the requester no account, or more than one."""
    return Refused(
        "identity",
        f"{_who(command)} maps to no account: {why}",
        f"Your Globus identity {command.requester_name} is not mapped to an account on this system. If you have"
        " an account here under another identity, link it to your Globus account and submit again.",
        ends_right=True,
    )


def undecided(command: StartEndpoint, why: str) -> Refused:
    """There is no answer now; nobody loses a right by that."""
    return Refused(
        "identity",
        f"mapping {_who(command)} failed: {why}",
        "Your identity could not be mapped to a local account because of a temporary failure. Try again later.",
    )


def _who(command: StartEndpoint) -> str:
    return f"{command.requester_name!r} (identity {command.requester})"
