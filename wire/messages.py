"""The messages of protocol v1: the byte 0x01, then one JSON object `{"message_type": M, "data": {...}}`.

The public writer and reader of this format is `globus_compute_common.messagepack`; it costs 130 ms to import, and a
user endpoint must check in before that. The shapes are the same: the tests hold them against the public package.

`pack` never fails for a well-typed message. `unpack` raises `MessageError` for anything that is not a whole, known
message; unknown fields are ignored, so that either side may be the newer one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from wire.nesting import is_shallow
from wire.printable import printable

DEEPEST = 100
"""Objects and lists in each other: what is read here is written again, deeper in the stack."""

_VERSION = b"\x01"


class MessageError(ValueError):
    """The bytes are not a message of protocol v1; the text names the field that is wrong."""


@dataclass(frozen=True, slots=True)
class Task:
    """A function call to run. `task_buffer` is the function's code followed by its packed arguments."""

    task_id: str
    task_buffer: str
    container_id: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """Why a task has no value: a `code` for programs, a `user_message` for the user."""

    code: str
    user_message: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A step in a task's life. `timestamp` is in nanoseconds since the epoch."""

    timestamp: int
    state: str
    actor: str


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a task: `data` is the serialized value, or the traceback text when `error_details` is set."""

    task_id: str
    data: str
    details: Mapping[str, Any] | None = None
    error_details: ErrorDetails | None = None
    task_statuses: tuple[Transition, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A heartbeat, or with `{"error": text}` in `global_state` the notice that an endpoint could not start."""

    endpoint_id: str
    global_state: Mapping[str, Any]
    task_statuses: Mapping[str, Any] = field(default_factory=dict)


Message: TypeAlias = Task | Result | StatusReport


def pack(message: Message) -> bytes:
    """The bytes of `message` as they go over the wire."""
    if isinstance(message, Task):
        kind, data = "task", _task_data(message)
    elif isinstance(message, Result):
        kind, data = "result", _result_data(message)
    else:
        kind, data = "ep_status_report", _status_data(message)
    envelope = {"message_type": kind, "data": data}
    return _VERSION + json.dumps(envelope, separators=(",", ":")).encode()


def unpack(raw: bytes) -> Message:
    """The message in `raw`.

    Raises:
        MessageError: wrong version byte, not JSON, nested too deep, unknown type, or a required field missing or of the
            wrong type.
    """
    if raw[:1] != _VERSION:
        raise MessageError(f"not a protocol v1 message: first byte is {raw[:1]!r}, expected {_VERSION!r}")
    try:
        envelope = json.loads(raw[1:])
    except (ValueError, RecursionError) as e:
        raise MessageError(f"not JSON after the version byte: {e}") from None
    kind = envelope.get("message_type") if isinstance(envelope, dict) else None
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise MessageError(f"unknown message_type {printable(repr(kind), 64)}; known: {', '.join(_READERS)}")
    if not is_shallow(envelope, DEEPEST):
        raise MessageError(f"more than {DEEPEST} objects or lists in each other")
    return reader(_require(envelope, "data", dict))


def _task_data(task: Task) -> dict[str, Any]:
    return {"task_id": task.task_id, "container_id": task.container_id, "task_buffer": task.task_buffer}


def _result_data(result: Result) -> dict[str, Any]:
    error = result.error_details
    return {
        "task_id": result.task_id,
        "data": result.data,
        "details": result.details,
        "error_details": error and {"code": error.code, "user_message": error.user_message},
        "task_statuses": [{"timestamp": t.timestamp, "state": t.state, "actor": t.actor} for t in result.task_statuses],
    }


def _status_data(report: StatusReport) -> dict[str, Any]:
    return {
        "endpoint_id": report.endpoint_id,
        "global_state": report.global_state,
        "task_statuses": report.task_statuses,
    }


def _read_task(data: dict[str, Any]) -> Task:
    container_id = data.get("container_id")
    return Task(
        task_id=_uuid(data, "task_id"),
        task_buffer=_require(data, "task_buffer", str),
        container_id=None if container_id is None else _uuid(data, "container_id"),
    )


def _read_result(data: dict[str, Any]) -> Result:
    error = data.get("error_details")
    return Result(
        task_id=_uuid(data, "task_id"),
        data=_require(data, "data", str),
        details=data.get("details"),
        error_details=None if error is None else _read_error(_require(data, "error_details", dict)),
        task_statuses=tuple(_read_transition(t) for t in _statuses(data)),
    )


def _statuses(data: dict[str, Any]) -> list[Any]:
    statuses: list[Any] = [] if data.get("task_statuses") is None else _require(data, "task_statuses", list)
    return statuses


def _read_error(data: dict[str, Any]) -> ErrorDetails:
    return ErrorDetails(_require(data, "code", str), _require(data, "user_message", str))


def _read_transition(data: Any) -> Transition:
    if not isinstance(data, dict):
        raise MessageError("field 'task_statuses': each entry must be an object")
    return Transition(_require(data, "timestamp", int), _require(data, "state", str), _require(data, "actor", str))


def _read_status(data: dict[str, Any]) -> StatusReport:
    key = "global_state" if "global_state" in data else "ep_status_report"
    return StatusReport(
        endpoint_id=_uuid(data, "endpoint_id"),
        global_state=_require(data, key, dict),
        task_statuses=_require(data, "task_statuses", dict),
    )


_READERS: dict[str, Callable[[dict[str, Any]], Message]] = {
    "task": _read_task,
    "result": _read_result,
    "ep_status_report": _read_status,
}


def _require(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if not isinstance(value, kind):
        raise MessageError(f"field {key!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _uuid(data: dict[str, Any], key: str) -> str:
    text = _require(data, key, str)
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise MessageError(f"field {key!r}: not a UUID: {text[:64]!r}") from None
