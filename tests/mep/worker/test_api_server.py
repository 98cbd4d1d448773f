"""Who asks a worker's API: the server in this process, on a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from mep.worker.api import Answer
from mep.worker.api_server import SHARE, ApiServer
from mep.worker.event_loop import EventLoop

BODY = b'{"line": "connected"}'
REQUEST = b"%s /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"


def served(folder: Path, story: Callable[[Path], Awaitable[None]]) -> None:
    async def answer(target: str) -> Answer:
        return Answer(BODY)

    async def whole() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "api"))
            listening.listen(4 * SHARE)
            listening.setblocking(False)
            server = asyncio.ensure_future(ApiServer(listening, os.geteuid(), None, answer).serve())
            try:
                await asyncio.wait_for(story(folder / "api"), 60)
            finally:
                server.cancel()
                serving = asyncio.all_tasks() - {asyncio.current_task()}
                await asyncio.wait(serving)  # what has been accepted ends with its other end

    loop = EventLoop()
    try:
        loop.run_until_complete(whole())
    finally:
        loop.close()


async def asked(path: Path, method: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(REQUEST % method)
    said = await reader.read()
    writer.close()
    return said


def test_who_connects_without_a_pause_leaves_turns_to_all_else(tmp_path: Path) -> None:
    """A connection that waits is accepted at once, and one too many ended at once: neither may hold up the broker."""

    async def story(path: Path) -> None:
        flood = [socket.socket(socket.AF_UNIX) for _ in range(4 * SHARE)]
        try:
            for each in flood:
                each.connect(str(path))
            left, turns = [flood[-1]], 0
            flood[-1].setblocking(False)
            while left:
                await asyncio.sleep(0)
                turns += 1
                try:
                    left = [each for each in left if each.recv(1)]
                except BlockingIOError:
                    continue
            assert turns >= 4 * SHARE
        finally:
            for each in flood:
                each.close()

    served(tmp_path, story)


def test_who_asks_for_the_head_gets_that_alone(tmp_path: Path) -> None:
    trouble: list[object] = []

    async def story(path: Path) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: trouble.append(context))
        whole, head = await asked(path, b"GET"), await asked(path, b"HEAD")
        assert whole == head + BODY and b"Content-Length: %d" % len(BODY) in head

    served(tmp_path, story)
    assert not trouble
