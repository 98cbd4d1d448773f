"""Messages whose properties cannot be read: each is dropped with one line, and the connection goes on."""

from __future__ import annotations

import asyncio
import logging
import struct
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from pika import data, spec

from lab.broker import PrivateBroker
from lab.waiting import aiountil
from tests.wire.session import run
from wire.connection import Connection
from wire.consumer import Delivery
from wire.nesting import is_shallow
from wire.properties import DEEPEST, TolerantConnection, problem


def nested(depth: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    for _ in range(depth - 1):
        headers = {"a": headers}
    return headers


def deep_table(depth: int) -> bytes:
    """`depth` tables in each other, as on the wire."""
    table = struct.pack(">I", 0)
    for _ in range(depth):
        inner = b"\x01aF" + table
        table = struct.pack(">I", len(inner)) + inner
    return table


def deep_list(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"A" + struct.pack(">I", len(value)) + value
    entry = b"\x01a" + value
    return struct.pack(">I", len(entry)) + entry


def one(kind: bytes, value: bytes) -> bytes:
    """A table with one entry."""
    entry = b"\x01a" + kind + value
    return struct.pack(">I", len(entry)) + entry


ACCEPTED = {
    "tables": deep_table(1500),
    "lists": deep_list(1500),
    "deeper than services say": deep_table(300),
    "a timestamp beyond Python's years": one(b"T", struct.pack(">Q", 2**63)),
}
"""Header tables that RabbitMQ passes on."""
REFUSED = {
    "an unknown type": one(b"?", b""),
    "not a number": one(b"d", struct.pack(">d", float("nan"))),
    "infinity": one(b"f", struct.pack(">f", float("inf"))),
    "a table longer than its frame": struct.pack(">I", 2**32 - 1),
}
"""Those that another broker might."""


class Raw(dict):  # type: ignore[type-arg]
    """A header table that is encoded already."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__({"a": None})
        self.encoded = encoded


@pytest.fixture
def raw_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = data.encode_table

    def encode_table(pieces: list[bytes], table: Any) -> int:
        if not isinstance(table, Raw):
            return encode(pieces, table)
        pieces.append(table.encoded)
        return len(table.encoded)

    monkeypatch.setattr(data, "encode_table", encode_table)


@pytest.mark.system
@pytest.mark.usefixtures("raw_tables")
def test_a_poison_message_is_one_line_in_the_log(broker: PrivateBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def session(connection: Connection, queue: str) -> None:
        channel = await connection.channel()
        came: list[Delivery] = []
        consumer = await connection.consume(queue, came.append, prefetch=2, most_bytes=1000)
        for table in ACCEPTED.values():
            channel.basic_publish("", queue, b"x" * 100, pika.BasicProperties(headers=Raw(table)))
        channel.basic_publish("", queue, b"bad type", pika.BasicProperties(content_type=b"\xff"))
        channel.basic_publish("", queue, b"after", pika.BasicProperties(headers=nested(DEEPEST)))
        await aiountil(lambda: came, "the message after them")
        assert [delivery.body for delivery in came] == [b"after"]
        consumer.ack(came[0].tag)
        assert not connection.lost.is_set()
        left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        consumer.cancel()
        channel.queue_declare(queue, passive=True, callback=lambda f: left.set_result(f.method.message_count))
        assert await left == 0

    with caplog.at_level(logging.WARNING):
        run(broker, session, exclusive=True)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("wire")]
    assert len(lines) == len(ACCEPTED) + 1
    assert all(line.startswith("Dropped a message from queue ") and "\n" not in line for line in lines)


@pytest.mark.parametrize("table", [*ACCEPTED.values(), *REFUSED.values()], ids=[*ACCEPTED, *REFUSED])
def test_what_cannot_be_decoded_is_kept_with_its_message(table: bytes) -> None:
    payload = struct.pack(">HHQH", 60, 0, 5, 1 << 13) + table
    frame = struct.pack(">BHL", spec.FRAME_HEADER, 1, len(payload)) + payload + bytes([spec.FRAME_END])
    connection = TolerantConnection.__new__(TolerantConnection)
    connection._frame_buffer = frame + b"next"
    used, header = connection._read_frame()
    assert (used, header.channel_number, header.body_size) == (len(frame), 1, 5)
    assert problem(SimpleNamespace(routing_key="k"), header.properties)


def test_other_frames_fail_as_before() -> None:
    connection = TolerantConnection.__new__(TolerantConnection)
    connection._frame_buffer = struct.pack(">BHL", spec.FRAME_METHOD, 1, 4) + b"\xff" * 4 + bytes([spec.FRAME_END])
    with pytest.raises(KeyError):
        connection._read_frame()


@pytest.mark.parametrize(
    ("key", "properties", "fits"),
    [
        ("k", {}, True),
        ("k", {"headers": nested(DEEPEST)}, True),
        ("k", {"headers": nested(DEEPEST + 1)}, False),
        (b"\xff", {}, False),
        ("k", {"content_type": b"\xff"}, False),
    ],
)
def test_what_is_handed_on(key: Any, properties: dict[str, Any], fits: bool) -> None:
    assert (problem(SimpleNamespace(routing_key=key), pika.BasicProperties(**properties)) is None) is fits


def test_depth() -> None:
    assert is_shallow("x", 0)
    assert is_shallow([], 1) and not is_shallow([], 0)
    assert is_shallow({"a": [1, {"b": 2}]}, 3) and not is_shallow({"a": [1, {"b": 2}]}, 2)
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    assert not is_shallow(deep, 100)
