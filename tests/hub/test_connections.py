"""A hub that is asked by clients who are slow, hang, or open very many connections: others are served all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import urllib.request

import pytest

from hub import connections, server
from hub.connections import MOST_OF_ONE_ACCOUNT, Crowd
from hub.limits import PIECE_BYTES, LimitedRequests, Limits, Turns
from lab.accounts import LocalAccount
from lab.hub import HubProcess
from tests.hub.units import run

LARGE = 64 * 2**20
"""More than any socket's buffer has."""
MANY = """
import select, socket, sys
opened = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
closed = set()
while len(closed) < int(sys.argv[3]):
    for each in select.select([s for s in opened if s not in closed], [], [])[0]:
        closed.add(each)
print("closed", flush=True)
sys.stdin.read()
"""


async def app(scope, receive, send):
    """Reads the body, and answers with LARGE bytes."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


@contextlib.asynccontextmanager
async def served(turns, app=app):
    """An application on a port of its own; yields the web server and where it listens."""
    listening = socket.create_server(("127.0.0.1", 0))
    web = server._WebServer(server._web(LimitedRequests(app, turns), None, Crowd()))
    serving = asyncio.ensure_future(web.serve([listening]))
    try:
        yield web, listening.getsockname()
    finally:
        web.stop()
        await serving


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("HEAD_TIME", b""),
        ("HEAD_TIME", b"GET / HTTP/1.1\r\nHost: h\r\n"),
        ("BODY_TIME", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nab"),
        ("TAKE_TIME", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ],
)
def test_who_is_slow_is_cut_off(monkeypatch, limit, said):
    monkeypatch.setattr(connections, limit, 0.3)

    async def work():
        async with served(Turns(Limits())) as (web, address):
            _, writer = await asyncio.open_connection(*address, limit=1000)
            writer.write(said)
            while not web.server_state.connections:
                await asyncio.sleep(0.01)
            while web.server_state.connections:
                await asyncio.sleep(0.01)
            writer.transport.abort()

    run(work())


def test_an_answer_is_written_as_it_is_taken():
    """All of it at once would be memory that a client could have kept for nothing, a thousand times."""
    written = []

    async def work():
        async with served(Turns(Limits())) as (web, address):
            reader, writer = await asyncio.open_connection(*address, limit=1000)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            (connection,) = web.server_state.connections
            while not connection.flow.write_paused:
                await asyncio.sleep(0.01)
            written.append(connection.transport.get_write_buffer_size())
            assert not connection.cycle.response_complete
            writer.transport.abort()

    run(work())
    assert written[0] <= 3 * PIECE_BYTES


def test_nobody_says_who_they_are():
    """Guesses at secrets are counted for who is at the other end; any account could name another one each time."""
    seen = []

    async def look(scope, receive, send):
        seen.append((scope["client"][0], scope["scheme"]))
        await app(scope, receive, send)

    async def work():
        async with served(Turns(Limits()), look) as (_, address):
            reader, writer = await asyncio.open_connection(*address, limit=1000)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    run(work())
    assert seen == [("127.0.0.1", "http")]


def test_one_account_cannot_have_all_connections(root: None, hub: HubProcess) -> None:
    more = 100
    with LocalAccount("meptest_crowd") as eve:
        command = [sys.executable, "-c", MANY, str(hub.port), str(MOST_OF_ONE_ACCOUNT + more), str(more)]
        hanging = subprocess.Popen(
            command, user=eve.uid, group=eve.gid, extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert hanging.stdout is not None
            assert hanging.stdout.readline() == b"closed\n"
            with urllib.request.urlopen(f"{hub.url}/v2/version", timeout=60) as answer:
                assert answer.status == 200
        finally:
            hanging.kill()
            hanging.communicate()
        assert f" connections of uid {eve.uid}, which had too many" in hub.log.read_text()


def test_the_kernel_is_asked_again_when_it_could_not_be(monkeypatch):
    monkeypatch.setattr(connections, "MOST_OF_ONE_ACCOUNT", 0)
    monkeypatch.setattr(connections, "_BETWEEN_LOOKS", 0.01)
    asked = []

    def accounts_of_connections(ends):
        asked.append(ends)
        raise OSError("no descriptors")

    monkeypatch.setattr(connections, "accounts_of_connections", accounts_of_connections)

    async def work():
        async with served(Turns(Limits())) as (_, address):
            _, writer = await asyncio.open_connection(*address)
            while len(asked) < 2:
                await asyncio.sleep(0.01)
            writer.transport.abort()

    run(asyncio.wait_for(work(), 30))


def test_one_host_cannot_have_all_connections(monkeypatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE_HOST", 2)

    async def work():
        crowd = Crowd()
        assert [crowd.came(number, "192.0.2.1") for number in range(3)] == [True, True, False]
        crowd.went(0)
        crowd.went(2)
        assert crowd.came(3, "192.0.2.1")
        assert crowd.came(4, "192.0.2.2")

    run(work())
