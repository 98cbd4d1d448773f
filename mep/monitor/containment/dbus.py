"""D-Bus messages as bytes, as far as systemd's private socket needs them (D-Bus specification, "Message Protocol").

    data = Call(path, name, interface, "StopUnit", "ss", ("x.scope", "replace")).encode(serial=1)
    message = decode(prefix + rest)     # rest: `rest_of(prefix)` bytes, after the first PREFIX bytes
    (job,) = message.values("o")

Calls may have every type that systemd takes from us. Of what comes, the header is read, and bodies of plain types; a
body is looked at only by who knows its signature. Strict: what is not exactly as specified is Malformed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PREFIX = 16
"""Bytes that say how long a message is."""
LARGEST = 2**20
"""Bytes of a message, in either direction. What we ask for has some hundred, the longest signal some ten thousand."""
CALL, REPLY, ERROR, SIGNAL = 1, 2, 3, 4
"""Kinds of messages."""

_NUMBERS = {"y": "B", "b": "I", "i": "i", "u": "I", "t": "Q"}
"""Types of numbers, as `struct` calls them."""
_ALIGNMENT = {"y": 1, "g": 1, "v": 1, "t": 8, "(": 8}
"""Of a type, by its first letter; 4 of all others."""
_ORDER = {ord("l"): "<", ord("B"): ">"}
_PATH = re.compile(r"/|(/[A-Za-z0-9_]+)+")
_PATH_OF, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_TO, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIELDS = dict(enumerate("osssussgu", start=1))
"""The types of the header's fields. Those that later versions may add are read over."""
_REQUIRED = {
    CALL: {_PATH_OF, _MEMBER},
    REPLY: {_REPLY_TO},
    ERROR: {_REPLY_TO, _ERROR_NAME},
    SIGNAL: {_PATH_OF, _INTERFACE, _MEMBER},
}
"""The fields that a message of a kind must have."""


class Malformed(ValueError):
    """These bytes are no message, or these values cannot be in one."""


@dataclass(frozen=True)
class Call:
    """A call of a method. values: one for each complete type of the signature; of a variant: (signature, value)."""

    path: str
    destination: str
    interface: str
    member: str
    signature: str = ""
    values: tuple[Any, ...] = ()

    def encode(self, serial: int) -> bytes:
        """The message with this number, which its reply will name. Raises Malformed."""
        fields = [(_PATH_OF, ("o", self.path)), (_INTERFACE, ("s", self.interface)), (_MEMBER, ("s", self.member))]
        fields.append((_DESTINATION, ("s", self.destination)))
        if self.signature:
            fields.append((_SIGNATURE, ("g", self.signature)))
        head, body = _Writer(), _Writer()
        try:
            for type_, value in zip(_types(self.signature), self.values, strict=True):
                body.put(type_, value)
            head.data += struct.pack("<4BII", ord("l"), CALL, 0, 1, len(body.data), serial)
            head.put("a(yv)", fields)
            head.align(8)
        except (struct.error, TypeError, ValueError) as e:
            raise Malformed(f"{self.member} cannot be called like this: {e}") from None
        if len(head.data) + len(body.data) > LARGEST:
            raise Malformed(f"{self.member} cannot be called like this: more than {LARGEST} bytes")
        return bytes(head.data + body.data)


@dataclass(frozen=True)
class Message:
    """What has come. reply_to: the number of the call, of REPLY and ERROR. member: of SIGNAL. error: of ERROR."""

    kind: int
    signature: str
    body: bytes
    order: str
    reply_to: int = 0
    member: str = ""
    error: str = ""

    def values(self, signature: str) -> tuple[str | int, ...]:
        """What the body holds. Raises Malformed when it is not of this signature, or not of plain types."""
        if self.signature != signature:
            raise Malformed(f"a body of type {self.signature!r} where {signature!r} belongs")
        body = _Reader(self.body, self.order)
        found = tuple(body.take(type_) for type_ in _types(signature))
        body.end()
        return found


def rest_of(prefix: bytes) -> int:
    """How many bytes of a message come after its first PREFIX. Raises Malformed."""
    order = _ORDER.get(prefix[0])
    if order is None or prefix[3] != 1 or prefix[1] not in _REQUIRED:
        raise Malformed(f"no D-Bus message begins with {prefix[:4].hex()}")
    body, serial, fields = struct.unpack_from(f"{order}3I", prefix, 4)
    rest = int(fields + -fields % 8 + body)
    if serial == 0 or PREFIX + rest > LARGEST:
        raise Malformed(f"a message without number, or of more than {LARGEST} bytes")
    return rest


def decode(data: bytes) -> Message:
    """A whole message. Raises Malformed."""
    if len(data) < PREFIX or len(data) != PREFIX + rest_of(data[:PREFIX]):
        raise Malformed("a message that is not as long as it says")
    kind, order = data[1], _ORDER[data[0]]
    body, _, length = struct.unpack_from(f"{order}3I", data, 4)
    fields: dict[int, str | int] = {}
    head = _Reader(data[: len(data) - body], order, PREFIX)
    while head.at < PREFIX + length:
        head.align(8)
        field, (type_, value) = head.number("y"), head.variant()
        if field == 0 or field in fields or _FIELDS.get(field, type_) != type_:
            raise Malformed(f"field {field} of the header is of type {type_!r}, or there twice")
        fields[field] = value
    if head.at != PREFIX + length:
        raise Malformed("the header's last field is longer than the header")
    head.align(8)
    head.end()
    if missing := _REQUIRED[kind] - fields.keys():
        raise Malformed(f"no field {min(missing)} in the header")
    signature = str(fields.get(_SIGNATURE, ""))
    if body and not signature:
        raise Malformed("a body without signature")
    texts = {"member": str(fields.get(_MEMBER, "")), "error": str(fields.get(_ERROR_NAME, ""))}
    return Message(kind, signature, data[len(data) - body :], order, int(fields.get(_REPLY_TO, 0)), **texts)


def _types(signature: str) -> Iterator[str]:
    """The complete types in a signature."""
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        yield signature[at:end]
        at = end


def _end(signature: str, at: int) -> int:
    """Where the complete type ends that begins there."""
    kind = signature[at : at + 1]
    if kind == "a":
        return _end(signature, at + 1)
    if kind == "(":
        at += 1
        while signature[at : at + 1] != ")":
            at = _end(signature, at)
    elif kind not in (*_NUMBERS, *"sogv"):
        raise Malformed(f"type {kind!r} in {signature!r}, which is not known here")
    return at + 1


class _Writer:
    """Little endian: who reads knows both."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, to: int) -> None:
        self.data += bytes(-len(self.data) % to)

    def put(self, type_: str, value: Any) -> None:
        """One complete type. Raises struct.error, TypeError, ValueError."""
        self.align(_alignment(type_))
        if type_ in _NUMBERS:
            if (type_ == "b") != isinstance(value, bool):
                raise TypeError(f"{value!r} is not of type {type_}")
            self.data += struct.pack(f"<{_NUMBERS[type_]}", value)
        elif type_ in ("s", "o", "g"):
            text = _checked(type_, value).encode()
            self.data += struct.pack("<B" if type_ == "g" else "<I", len(text)) + text + b"\0"
        elif type_ == "v":
            signature, inner = value
            (whole,) = _types(signature)
            self.put("g", whole)
            self.put(whole, inner)
        elif type_.startswith("a"):
            self._put_array(type_[1:], value)
        else:
            for part, one in zip(_types(type_[1:-1]), value, strict=True):
                self.put(part, one)

    def _put_array(self, type_: str, values: list[Any]) -> None:
        length_at = len(self.data)
        self.data += bytes(4)
        self.align(_alignment(type_))
        begin = len(self.data)
        for value in values:
            self.put(type_, value)
        struct.pack_into("<I", self.data, length_at, len(self.data) - begin)


class _Reader:
    """Raises Malformed where something else is than what is asked for."""

    def __init__(self, data: bytes, order: str, at: int = 0) -> None:
        self.at = at
        self._data = data
        self._order = order

    def align(self, to: int) -> None:
        if any(self._bytes(-self.at % to)):
            raise Malformed("padding that is not zero")

    def end(self) -> None:
        if self.at != len(self._data):
            raise Malformed(f"{len(self._data) - self.at} bytes too many")

    def take(self, type_: str) -> str | int:
        """A plain type, or a variant that holds one."""
        if type_ == "v":
            return self.variant()[1]
        if type_ in _NUMBERS:
            return self.number(type_)
        if type_ not in ("s", "o", "g"):
            raise Malformed(f"type {type_!r}, which is not read here")
        size = self.number("y" if type_ == "g" else "u")
        text, end = self._bytes(size), self._bytes(1)
        try:
            if end != b"\0":
                raise Malformed("a text without end")
            return _checked(type_, text.decode())
        except UnicodeDecodeError:
            raise Malformed("a text that is not UTF-8") from None

    def variant(self) -> tuple[str, str | int]:
        """A type, and a value of it."""
        type_ = str(self.take("g"))
        if type_ == "v":
            raise Malformed("a variant in a variant")
        return type_, self.take(type_)

    def number(self, type_: str) -> int:
        self.align(_alignment(type_))
        code = self._order + _NUMBERS[type_]
        (value,) = struct.unpack(code, self._bytes(struct.calcsize(code)))
        if type_ == "b" and value > 1:
            raise Malformed(f"{value} is neither true nor false")
        return int(value)

    def _bytes(self, count: int) -> bytes:
        found = self._data[self.at : self.at + count]
        if len(found) < count:
            raise Malformed("a value that is longer than the message")
        self.at += count
        return found


def _alignment(type_: str) -> int:
    return _ALIGNMENT.get(type_[0], 4)


def _checked(type_: str, text: Any) -> str:
    if not isinstance(text, str) or "\0" in text or (type_ == "o" and not _PATH.fullmatch(text)):
        raise Malformed(f"{text!r:.100} is not of type {type_}")
    return text
