"""Seals credentials for the file that a user endpoint reads, and opens them: Fernet, as the public package does.

In the worker, which has had them anyway: the monitor makes the keys, and never reads what they open.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken


def seal(credentials: dict[str, Any], key: str, ending: str = "") -> bytes:
    """`credentials` (an `amqp_creds` object) as they stand in the file. ending: why the user endpoint is about to be
    stopped, in words for its user, whose tasks it answers with them. Raises ValueError: that is no key."""
    content = {"amqp_creds": credentials, **({"ending": ending} if ending else {})}
    return Fernet(key).encrypt(json.dumps(content, separators=(",", ":")).encode())


def read(data: bytes, key: str) -> dict[str, Any]:
    """The credentials in `data`: what `seal` has made, or, without a key, JSON. Raises ValueError."""
    try:
        credentials = json.loads(Fernet(key).decrypt(data))["amqp_creds"] if key else json.loads(data)
    except InvalidToken:
        raise ValueError("its key does not open it") from None
    except (KeyError, TypeError, RecursionError):
        raise ValueError("it holds no credentials") from None
    if not isinstance(credentials, dict):
        raise ValueError("it holds no credentials")  # noqa: TRY004 - a type is a value here
    return credentials
