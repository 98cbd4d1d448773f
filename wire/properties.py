"""Properties of messages from strangers: one that cannot be read costs that message, never the connection.

A message carries a table of headers, which may hold tables. The broker passes on whatever is well formed; pika decodes
it by recursion and to Python's own types, and an error there ends the connection. The message then comes again, on
every connection, for ever. So an error is kept with the message, whose consumer drops it.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.frame import Header

from wire.listeners import check_peer
from wire.nesting import is_shallow

DEEPEST = 16
"""Tables and lists in each other; what services say has two."""

_FRAME = struct.Struct(">BHL")
_CONTENT = struct.Struct(">HHQ")


class UnreadableProperties(ValueError):
    """A message that must not be handed on; the text says why."""


class TolerantConnection(AsyncioConnection):  # type: ignore[misc, unused-ignore]
    """pika's connection, which survives properties that it cannot decode, and speaks to no stranger on loopback."""

    def _proto_connection_made(self, transport: Any) -> None:
        if self.params.ssl_options is None:
            address, port = transport._sock.getpeername()[:2]
            check_peer(address, port)
        super()._proto_connection_made(transport)

    def _read_frame(self) -> tuple[int, Any]:
        try:
            return super()._read_frame()  # type: ignore[no-any-return, unused-ignore]
        except Exception as e:
            frame = _without_properties(self._frame_buffer, e)
            if frame is None:
                raise
            return frame


class _Unreadable(spec.BasicProperties):  # type: ignore[misc]
    """Stands for properties that could not be decoded; all are empty."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def _without_properties(buffer: bytes, error: Exception) -> tuple[int, Header] | None:
    """Returns the size of a whole header frame at the start of `buffer`, and what is left of it; None for others."""
    kind, channel, size = _FRAME.unpack_from(buffer)
    if kind != spec.FRAME_HEADER or size < _CONTENT.size:
        return None
    _, _, body_size = _CONTENT.unpack_from(buffer, _FRAME.size)
    return _FRAME.size + size + spec.FRAME_END_SIZE, Header(channel, body_size, _Unreadable(error))


def problem(method: Any, properties: Any) -> str | None:
    """Says what is wrong with a message's properties or routing key; None when it can be handed on."""
    if isinstance(properties, _Unreadable):
        return f"its properties cannot be decoded, {type(properties.error).__name__}"
    if isinstance(method.routing_key, bytes) or isinstance(properties.content_type, bytes):
        return "its routing key or content type is not UTF-8"
    if not is_shallow(properties.headers, DEEPEST):
        return f"its headers have more than {DEEPEST} tables in each other"
    return None
