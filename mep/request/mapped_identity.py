"""`MappedIdentity`: whom a requester is mapped to. Made by `mapper.mapping`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MappedIdentity:
    """The identity that decided, the user name it maps to, and the rule that says so.

    candidates: one list per document of {identity: [names]}, as user endpoints report it in their heartbeats.
    """

    username: str
    identity: str
    rule: str
    candidates: list[list[dict[str, list[str]]]]
