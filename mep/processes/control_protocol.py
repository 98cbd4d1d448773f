"""What is said on the socket of requests that act: `control` in a manager's run folder (SOCK_SEQPACKET).

request   version, kind, number, until, target, reason: always of one size, one a connection
answer    version, outcome, number, and a text

The monitor has nothing to parse in a request: numbers, and texts of fixed length that are filled up with zeros. Which
kind has which of these is in KINDS. The answer to an order (all kinds but a reload) has a JSON object for its text.
Each later form begins with the version, so that programs of two versions, as there are during an upgrade, can say so.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

NAME = "control"
VERSION = 1
MOST_TEXT = 32 * 2**10
"""Bytes of the text of an answer."""

MOST_TARGET, MOST_REASON = 128, 512
"""Bytes of the texts of a request."""
_REQUEST = struct.Struct(f"!HHII{MOST_TARGET}s{MOST_REASON}s")
_ANSWER = struct.Struct("!HHI")
_VERSION = struct.Struct("!H")
REQUEST_SIZE = _REQUEST.size
MOST_ANSWER = _ANSWER.size + MOST_TEXT
"""Bytes."""


class Kind(enum.IntEnum):
    """What is to be done."""

    RELOAD = 1
    KILL = 2
    """One user endpoint, by its name."""
    KILL_OF = 3
    """The user endpoints of an account, or of the identity that asked for them."""
    KILL_ALL = 4
    DRAIN = 5
    UNDRAIN = 6
    BAN = 7
    """An account or an identity."""
    BAN_AND_END = 8
    """The same, and what runs of it is ended."""
    UNBAN = 9


@dataclass(frozen=True)
class Fields:
    """Which fields a kind of request has: `target` it must have, `reason` and `until` it may."""

    target: bool = False
    reason: bool = False
    until: bool = False


KINDS = {
    Kind.RELOAD: Fields(),
    Kind.KILL: Fields(target=True, reason=True),
    Kind.KILL_OF: Fields(target=True, reason=True),
    Kind.KILL_ALL: Fields(reason=True),
    Kind.DRAIN: Fields(reason=True, until=True),
    Kind.UNDRAIN: Fields(),
    Kind.BAN: Fields(target=True, reason=True, until=True),
    Kind.BAN_AND_END: Fields(target=True, reason=True, until=True),
    Kind.UNBAN: Fields(target=True),
}


class Outcome(enum.IntEnum):
    """What became of it."""

    DONE = 1
    REFUSED = 2
    SENSELESS = 3
    """The request was not understood; nothing was done."""
    NOT_KEPT = 4
    """It was done, and could not be written down: a restart undoes it."""


@dataclass(frozen=True)
class Request:
    """number: the answer has it, too. The others are for the kinds that have these (KINDS).

    target: whom it concerns. reason: why, in words that users read. until: seconds since the epoch; 0: no end.
    """

    kind: Kind
    number: int
    target: str = ""
    reason: str = ""
    until: int = 0


def write_request(request: Request) -> bytes:
    """The record of a request. Raises ValueError when a text is too long, or a time does not fit."""
    texts = [request.target.encode(), request.reason.encode()]
    try:
        data = _REQUEST.pack(VERSION, request.kind, request.number, request.until, *texts)
    except struct.error as e:
        raise ValueError(f"a number of the request does not fit: {e}") from None
    if read_request(data) != request:
        raise ValueError("a text of the request does not fit")
    return data


def read_request(data: bytes) -> Request:
    """The request in a record. Raises ValueError unless it is one; the text is for whoever sent it."""
    _check_version(data)
    if len(data) != _REQUEST.size:
        raise ValueError("a request is too short or too long")
    _, kind, number, until, target, reason = _REQUEST.unpack(data)
    request = Request(Kind(kind), number, read_text(target), read_text(reason), until)
    has = KINDS[request.kind]
    if bool(request.target) is not has.target:
        raise ValueError("it is not said whom the request concerns, or it concerns nobody")
    if (request.reason and not has.reason) or (request.until and not has.until):
        raise ValueError("a request of this kind has no reason, or no end")
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


def read_text(field: bytes) -> str:
    """The text in a field of fixed length. Raises ValueError."""
    text = field.rstrip(b"\0").decode()
    if not text.isprintable():
        raise ValueError("a text has characters that do not print")
    return text
