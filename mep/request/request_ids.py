"""Request ids: in logs, the audit trail and what users are told, so that all speak of the same request."""

from __future__ import annotations

import secrets

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that is taken for another, or for a digit."""
_RANDOM_BITS = 32
_LENGTH = 16


def new(now: float) -> str:
    """Returns a new id: 48 bits of milliseconds since the epoch, then 32 random ones. So ids sort by time.

    now: seconds since the epoch.
    """
    number = int(now * 1000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
