"""Reads and checks what the manager hands over: one JSON object on descriptor 0.

`cli` calls `take_input` once and `decode` on what it got. The keys are those of the public user endpoint program
(`amqp_creds`, `config`, `ep_info`, `mem_fd`, `enckey`, `allowed_functions`, `audit_fd`) and four of ours: `report_fd`,
the descriptor of `uep.report_pipe`; `revived`: it is started again by a command that an earlier one had; `request_id`,
which the admin has in journal and audit trail; `pinned_functions`, see `uep.pinned`. An unknown key is ignored, so that
the manager may be newer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.queues import QueueInfoError, read_credentials, read_endpoint_id

READ_SIZE = 1 << 16
_SHA256 = re.compile("[0-9a-f]{64}")


class HandOverError(ValueError):
    """The hand-over cannot be used; the text names the key, never its value."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """The manager's words, checked.

    `credentials` is `amqp_creds` as it came; `facts` goes into every heartbeat; `credentials_fd` and `key` (both or
    neither) are for `uep.broker.credentials`; `allowed_functions` overrides the configuration's when
    `restricts_functions`; `pinned_functions` has the SHA-256 of each function that may run, by its id.
    """

    endpoint_id: str
    credentials: Mapping[str, Any] = field(repr=False)
    config: str = field(repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)
    credentials_fd: int | None = None
    key: str | None = field(default=None, repr=False)
    restricts_functions: bool = False
    allowed_functions: frozenset[str] | None = None
    pinned_functions: Mapping[str, str] | None = None
    audit_fd: int | None = None
    report_fd: int | None = None
    revived: bool = False
    request_id: str = ""

    def to_user(self, text: str) -> str:
        """Adds to a text for the user by which request the admin finds it."""
        return f"{text} (request {self.request_id})" if self.request_id else text


def take_input() -> bytes:
    """Reads everything on descriptor 0, which is /dev/null afterwards: no task shall read the hand-over."""
    chunks = []
    while chunk := os.read(0, READ_SIZE):
        chunks.append(chunk)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return b"".join(chunks)


def decode(raw: bytes) -> HandOver:
    """Checks the hand-over in `raw`, and makes its descriptors non-inheritable.

    Raises:
        HandOverError: not a JSON object, a key missing or of the wrong type, a descriptor that is not open.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        raise HandOverError("not JSON (is this program run by hand? it is started by the manager)") from None
    if not isinstance(data, dict):
        raise HandOverError("expected a JSON object")
    credentials = _typed(data, "amqp_creds", dict)
    fd, key = _descriptor(data, "mem_fd"), data.get("enckey")
    if key is not None and not isinstance(key, str):
        raise HandOverError("enckey: expected a string")
    return HandOver(
        endpoint_id=_checked_id(credentials),
        credentials=credentials,
        config=_typed(data, "config", str),
        facts=_typed(data, "ep_info", dict),
        credentials_fd=fd if key else None,
        key=key if fd is not None else None,
        restricts_functions="allowed_functions" in data,
        allowed_functions=_functions(data.get("allowed_functions")),
        pinned_functions=_pinned(data.get("pinned_functions")),
        audit_fd=_descriptor(data, "audit_fd"),
        report_fd=_descriptor(data, "report_fd"),
        revived=data.get("revived") is True,
        request_id=str(data.get("request_id") or "")[:64],
    )


def _typed(data: Mapping[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if not isinstance(value, kind):
        raise HandOverError(f"{key}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _checked_id(credentials: Mapping[str, Any]) -> str:
    try:
        read_credentials(credentials)
        return read_endpoint_id(credentials)
    except QueueInfoError as e:
        raise HandOverError(str(e)) from None


def _functions(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise HandOverError("allowed_functions: expected a list of function ids")
    return frozenset(v.lower() for v in value)


def _pinned(value: object) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(v, str) and _SHA256.fullmatch(v) for v in value.values()):
        raise HandOverError("pinned_functions: expected the SHA-256 of each function, by its id")
    return {key.lower(): digest for key, digest in value.items()}


def _descriptor(data: Mapping[str, Any], key: str) -> int | None:
    fd = data.get(key)
    if fd is None:
        return None
    if not isinstance(fd, int) or isinstance(fd, bool) or fd < 0:
        raise HandOverError(f"{key}: expected a descriptor number")
    try:
        os.set_inheritable(fd, False)
    except OSError:
        raise HandOverError(f"{key}: descriptor {fd} is not open") from None
    return fd
