"""The first step of a request: bytes from the command queue become a `StartEndpoint`, or are refused.

The shape of the message is that of the service (protocol notes in docs/protocol.md). It is trusted to be from the
service, and nothing more: every field is checked, and the endpoint's name, which becomes a folder name and an
argument, must be a plain one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mep.processes.sealed_file import SealedFile
from mep.processes.worker_protocol import MOST_CREDENTIALS
from mep.request.credentials import Credentials
from mep.request.refusal import Refused
from mep.request.start_endpoint import MAX_OPTIONS, MAX_REQUESTER, NAME, StartEndpoint
from wire.consumer import Delivery
from wire.queues import QueueInfoError, credentials_at_port, read_credentials

MAX_SKEW = 180
"""Seconds by which a command's time may differ from ours."""
MAX_BODY = 2 * 2**20
"""Bytes of a command; a longer one is not parsed: what JSON says in two bytes may take fifty in memory."""
MAX_PART = 64 * 2**10
"""Bytes, as JSON, of each part that is kept but for the user options: user_runtime, credentials, identity set."""
MAX_DEPTH = 128
"""Levels of objects and lists in a command. Far more would be deeper than the stack of who writes it anew."""

_COMMAND = "cmd_start_endpoint"
_FOR_USER = "This endpoint received a start command that it cannot use; please tell its administrators."


def decode(delivery: Delivery, request_id: str, now: float, amqp_port: int | None = None) -> StartEndpoint:
    """The start command in `delivery`. `now` is in seconds since the epoch. amqp_port: of config.yaml; when set, it
    replaces the port of each URL, for the user endpoint as well.

    Raises:
        Refused: stage `command`; too large, not JSON, not a start command, a field missing or wrong, or too old. Stage
            `options`; what the client sends with a task is too large.
        OSError: no descriptor or memory for the credentials.
    """
    body = _body(delivery)
    _check_age(delivery, now)
    if body.get("command") != _COMMAND:
        raise _refused(f"unknown command {body.get('command')!r:.80}; this manager knows {_COMMAND}")
    if body.get("args"):
        raise _refused("'args': a start command has none")
    kwargs = _member(body, "kwargs", dict)
    options = _text("user_endpoint_config", _optional_object(kwargs, "user_opts"), MAX_OPTIONS, stage="options")
    runtime = _text("user_runtime", _optional_object(kwargs, "user_runtime"), MAX_PART, stage="options")
    credentials = _member(kwargs, "amqp_creds", dict)
    _text("amqp_creds", credentials, MAX_PART)
    identity_set = _text("globus_identity_set", _member(body, "globus_identity_set", list), MAX_PART)
    try:
        queues = read_credentials(credentials, amqp_port)
    except QueueInfoError as e:
        raise _refused(str(e)) from None
    return StartEndpoint(
        request_id=request_id,
        name=_endpoint_name(kwargs),
        endpoint_id=queues.endpoint_id,
        user_options=options,
        user_runtime=runtime,
        credentials=Credentials(SealedFile.of(json.dumps(credentials_at_port(credentials, amqp_port)).encode())),
        requester=_name_of_somebody(body, "globus_effective_identity"),
        requester_name=_name_of_somebody(body, "globus_username"),
        identity_set=identity_set,
    )


def credentials_in(delivery: Delivery) -> bytes:
    """The credentials in a command that could not be decoded, as JSON, for a notice to its user; nothing when there
    are none.

    Of a command that is too long nobody can be told, nor with credentials that are.
    """
    if len(delivery.body) > MAX_BODY:
        return b""
    try:
        credentials = json.loads(delivery.body)["kwargs"]["amqp_creds"]
        text = json.dumps(credentials).encode() if isinstance(credentials, dict) else b""
    except (ValueError, TypeError, KeyError, RecursionError):
        return b""
    return text if len(text) <= MOST_CREDENTIALS else b""


def _body(delivery: Delivery) -> dict[str, Any]:
    if delivery.content_type != "application/json":
        raise _refused(f"content type is {delivery.content_type!r:.80}, expected 'application/json'")
    if len(delivery.body) > MAX_BODY:
        raise _refused(f"too large ({len(delivery.body)} bytes; the limit is {MAX_BODY})")
    try:
        body = json.loads(delivery.body)
    except (ValueError, RecursionError) as e:
        raise _refused(f"not JSON: {str(e)[:200]}") from None
    if not isinstance(body, dict):
        raise _refused(f"expected an object, got {type(body).__name__}")
    if _is_deeper(body, MAX_DEPTH):
        reason = f"nested too deeply (more than {MAX_DEPTH} levels)"
        raise Refused("command", f"the command is {reason}", f"Your request is {reason}; user_endpoint_config may be.")
    return body


def _text(name: str, value: object, limit: int, stage: str = "command") -> str:
    """As JSON, unless that is too large: it is kept, on record and on disk, for as long as the user endpoint runs."""
    text = json.dumps(value)
    if len(text) > limit:
        reason = f"{name} is too large ({len(text)} bytes as JSON; the limit is {limit})"
        raise Refused(stage, reason, f"Your {reason}." if stage == "options" else _FOR_USER)
    return text


def _is_deeper(value: object, levels: int) -> bool:
    """Whether there are more levels of objects and lists within each other. Not recursive."""
    level = [value]
    for _ in range(levels):
        level = [inner for each in level for inner in _inside(each)]
    return any(isinstance(each, (dict, list)) for each in level)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_age(delivery: Delivery, now: float) -> None:
    if not isinstance(delivery.timestamp, int):
        raise _refused("the message has no timestamp")
    skew = round(now - delivery.timestamp)
    if abs(skew) > MAX_SKEW:
        raise Refused(
            "command",
            f"the command is {skew} s old by this system's clock (limit {MAX_SKEW} s); is the clock right?",
            "The request waited too long, or the endpoint's clock is wrong. Please submit again.",
        )


def _member(owner: dict[str, Any], key: str, kind: type) -> Any:
    value = owner.get(key)
    if not isinstance(value, kind):
        raise _refused(f"field {key!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _optional_object(owner: dict[str, Any], key: str) -> dict[str, Any]:
    value: dict[str, Any] = {} if owner.get(key) is None else _member(owner, key, dict)
    return value


def _endpoint_name(kwargs: dict[str, Any]) -> str:
    name: str = _member(kwargs, "name", str)
    if not NAME.fullmatch(name):
        raise _refused(f"field 'name': {name[:140]!r} is not a plain name (letters, digits, '.', '_', '-')")
    return name


def _name_of_somebody(body: dict[str, Any], key: str) -> str:
    """It goes into the log, the audit trail, and texts for users."""
    name: str = _member(body, key, str)
    if len(name) > MAX_REQUESTER:
        raise _refused(f"field {key!r}: has {len(name)} characters; the limit is {MAX_REQUESTER}")
    return name


def _refused(reason: str) -> Refused:
    return Refused("command", reason, _FOR_USER)
