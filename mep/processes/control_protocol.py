"""What is said on the socket of requests that act: `control` in a manager's run folder (SOCK_SEQPACKET).

request   version, kind, number, zero, target, reason: always of one size, one a connection
answer    version, outcome, number, and a text

The monitor has nothing to parse in a request: numbers, and texts of fixed length that are filled up with zeros. A
reload has neither target nor reason; they are for kinds that concern somebody. Each later form begins with the version,
so that programs of two versions, as there are during an upgrade, can say so.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

NAME = "control"
VERSION = 1
MOST_TEXT = 32 * 2**10
"""Bytes of the text of an answer."""

_REQUEST = struct.Struct("!HHII128s512s")
_ANSWER = struct.Struct("!HHI")
_VERSION = struct.Struct("!H")
REQUEST_SIZE = _REQUEST.size
MOST_ANSWER = _ANSWER.size + MOST_TEXT
"""Bytes."""


class Kind(enum.IntEnum):
    """What is to be done."""

    RELOAD = 1


class Outcome(enum.IntEnum):
    """What became of it."""

    DONE = 1
    REFUSED = 2
    SENSELESS = 3
    """The request was not understood; nothing was done."""


@dataclass(frozen=True)
class Request:
    """number: the answer has it, too. target, reason: whom it concerns, and why, for the kinds that have these."""

    kind: Kind
    number: int
    target: str = ""
    reason: str = ""


def write_request(request: Request) -> bytes:
    """The record of a request. Raises ValueError when a text is too long."""
    texts = [request.target.encode(), request.reason.encode()]
    data = _REQUEST.pack(VERSION, request.kind, request.number, 0, *texts)
    if read_request(data) != request:
        raise ValueError("a text of the request does not fit")
    return data


def read_request(data: bytes) -> Request:
    """The request in a record. Raises ValueError unless it is one; the text is for whoever sent it."""
    _check_version(data)
    if len(data) != _REQUEST.size:
        raise ValueError("a request is too short or too long")
    _, kind, number, zero, target, reason = _REQUEST.unpack(data)
    if zero:
        raise ValueError("a field that has no meaning yet is not zero")
    request = Request(Kind(kind), number, _text(target), _text(reason))
    if request.kind is Kind.RELOAD and (request.target or request.reason):
        raise ValueError("a reload concerns nobody")
    return request


def write_answer(outcome: Outcome, number: int, text: str) -> bytes:
    """The record of an answer; its text is cut if need be."""
    return _ANSWER.pack(VERSION, outcome, number) + text.encode(errors="replace")[:MOST_TEXT]


def read_answer(data: bytes, number: int) -> tuple[Outcome, str]:
    """The answer to the request of that number. Raises ValueError unless it is one."""
    _check_version(data)
    if len(data) < _ANSWER.size:
        raise ValueError("an answer is too short")
    _, outcome, answered = _ANSWER.unpack_from(data)
    if answered not in (number, 0):
        raise ValueError("an answer is to another request")
    return Outcome(outcome), data[_ANSWER.size :].decode(errors="replace")


def _check_version(data: bytes) -> None:
    if len(data) < _VERSION.size or (found := _VERSION.unpack_from(data)[0]) != VERSION:
        other = f"version {found}" if len(data) >= _VERSION.size else "no version"
        raise ValueError(f"a record of {other} of this socket came, and only version {VERSION} is known")


def _text(field: bytes) -> str:
    """Raises ValueError."""
    text = field.rstrip(b"\0").decode()
    if not text.isprintable():
        raise ValueError("a text has characters that do not print")
    return text
