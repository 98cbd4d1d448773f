from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.uep.handovers import handover
from uep.broker.credentials import Credentials, decrypt
from uep.handover import decode

KEY = Fernet.generate_key()


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("credentials")
    yield fd
    os.close(fd)


def credentials(fd: int, port: int | None = None) -> Credentials:
    return Credentials(decode(handover(mem_fd=fd, enckey=KEY.decode())), port)


def encrypted(url: str, **changes: Any) -> bytes:
    creds = json.loads(handover())["amqp_creds"] | changes
    for kind in ("task", "result", "heartbeat"):
        creds[f"{kind}_queue_info"]["connection_url"] = url
    return Fernet(KEY).encrypt(json.dumps({"amqp_creds": creds}).encode())


def test_refreshed_from_the_beginning_of_the_file(file: int) -> None:
    mine = credentials(file)
    os.write(file, encrypted("amqp://new:p@h/"))  # leaves the file's offset at its end
    asyncio.run(mine.refresh())
    assert mine.last.tasks.connection_url == "amqp://new:p@h/"


def test_why_the_manager_stops_it(file: int) -> None:
    mine = credentials(file)
    assert mine.ending() == ""
    os.pwrite(file, encrypted("amqp://new:p@h/"), 0)
    assert mine.ending() == ""
    content = {"amqp_creds": json.loads(handover())["amqp_creds"], "ending": "You may not. (request r1)"}
    os.pwrite(file, Fernet(KEY).encrypt(json.dumps(content).encode()), 0)
    assert mine.ending() == "You may not. (request r1)"


def test_torn_read_is_tried_again(file: int) -> None:
    mine = credentials(file)
    whole = encrypted("amqp://new:p@h/")
    os.pwrite(file, whole[:50], 0)

    async def rewrite_meanwhile() -> None:
        refreshing = asyncio.ensure_future(mine.refresh())
        await asyncio.sleep(0.06)
        os.pwrite(file, whole, 0)
        await refreshing

    asyncio.run(rewrite_meanwhile())
    assert mine.last.tasks.connection_url == "amqp://new:p@h/"


def test_unreadable_keeps_the_last(file: int) -> None:
    mine = credentials(file)
    os.pwrite(file, encrypted("amqp://x:p@h/", endpoint_id="0a0a0a0a-0000-4000-8000-000000000000"), 0)
    asyncio.run(mine.refresh())
    assert mine.last.tasks.connection_url == "amqp://u:secret@h/"


def test_port_of_the_configuration(file: int) -> None:
    assert credentials(file, port=443).last.tasks.connection_url == "amqp://u:secret@h:443/"


@pytest.mark.parametrize(
    "content",
    [b"", b"x", Fernet(KEY).encrypt(b"[]"), Fernet(KEY).encrypt(b"{")],
    ids=["nothing", "not encrypted", "another type", "not JSON"],
)
def test_decrypt_refuses(content: bytes) -> None:
    with pytest.raises(ValueError):
        decrypt(content, KEY.decode())
