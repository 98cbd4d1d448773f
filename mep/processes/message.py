"""The one form of what the monitor and a process of its own say to each other, over a socket that keeps messages apart.

A message is a header of fixed size, a flat JSON object of at most BODY bytes, and sealed files in memory with what is
larger, which may be passed on unread. Each kind says how many files it has, and how large each may be.

`channel` is for event loops; helpers that have none call `pack`, `send` and `receive`.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mep.processes.sealed_file import SealedFile
from mep.request.credentials import Unread

HEADER = struct.Struct("!HI")
"""The kind of the message, and the number of what it is about."""
BODY = 4096
"""Bytes of a body."""
MOST_TEXT = 3500
"""Bytes of a text in a body, as JSON."""
MOST_FILES = 8
"""Files of one message."""

Files = Sequence[SealedFile]
Message = tuple[int, int, Mapping[str, Any], Files]
"""Its kind, its number, its body, its files."""
Limits = Mapping[int, Sequence[int]]
"""The kinds of messages that come with files, and how many bytes each of these may have."""
FIRST_MORE = 3
"""The descriptor of the second socket that a helper is given; that of the first, over which messages go, is 0."""
START = 0
"""What each helper that answers questions is asked by being started, as number 0: it says once that it is ready."""
Fields = Mapping[str, type]
"""The fields of a body, all of them, and of which type each is."""


@dataclass(frozen=True)
class Dialogue:
    """What a helper may answer. module: its program. answers: to each kind of question, those that it may get."""

    module: str
    answers: Mapping[int, Mapping[int, Fields]]
    files: Limits


class Senseless(ValueError):
    """A message is not of the form that messages have, or not one that may come now."""


def pack(kind: int, number: int, body: Mapping[str, object]) -> bytes:
    """A message but for its files. Raises ValueError when the body is too long."""
    data = HEADER.pack(kind, number) + json.dumps(body).encode()
    if len(data) > HEADER.size + BODY:
        raise ValueError(f"a message of kind {kind} has {len(data)} bytes")
    return data


def send(connection: socket.socket, data: bytes, files: Sequence[Unread] = ()) -> None:
    """Sends what `pack` has made. Raises OSError, and BlockingIOError where the socket does not wait."""
    socket.send_fds(connection, [data], [file.descriptor for file in files])


def receive(connection: socket.socket, limits: Limits) -> Message | None:
    """The next message; None at the end.

    Raises:
        ValueError, RecursionError: it is not of its form; its files are closed.
        OSError: as `send`.
    """
    room = HEADER.size + BODY + 1
    data, descriptors, flags, _ = socket.recv_fds(connection, room, MOST_FILES, socket.MSG_CMSG_CLOEXEC)
    files = list(map(SealedFile, descriptors))  # from here on they are closed, whatever comes
    if not data and not files:
        return None
    if not HEADER.size <= len(data) < room or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise Senseless("a message is too short or too long")
    kind, number = HEADER.unpack_from(data)
    body = json.loads(data[HEADER.size :])
    if not isinstance(body, dict):
        raise Senseless("a body is no object")
    allowed = limits.get(kind, ())
    if len(files) != len(allowed):
        raise Senseless(f"a message of kind {kind} came with {len(files)} descriptors")
    for file, most in zip(files, allowed, strict=True):
        file.require(most)
    return kind, number, body, files


def cut(text: str) -> str:
    """As much of the text as fits into a body."""
    while len(json.dumps(text)) > MOST_TEXT:
        text = text[: len(text) * 3 // 4]
    return text
