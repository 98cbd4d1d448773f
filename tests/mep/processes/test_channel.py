"""The channel between the monitor and a process of its own: what goes through, and what else the other side sends."""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import gc
import json
import os
import random
import socket
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lab.waiting import aiountil
from mep.processes.channel import BODY, HEADER, MOST_WAITING, Channel
from mep.processes.sealed_file import SealedFile, sealed

LIMIT = 1000


class Kind(enum.IntEnum):
    PLAIN = 1
    WITH_FILE = 2
    WITH_TWO = 3


class Monitor:
    """One end, which keeps what comes; the other is a bare socket."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, int, Any, list[bytes]]] = []
        self.lost: list[str] = []
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = Channel(ours, {Kind.WITH_FILE: [LIMIT], Kind.WITH_TWO: [LIMIT, 5]}, self._take, self.lost.append)

    def _take(self, *message: Any) -> None:
        if message[2].get("odd"):
            raise KeyError("odd")
        *said, files = message
        self.taken.append((*said, [file.read() for file in files]))

    def send(self, data: bytes, *descriptors: int) -> None:
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.theirs.sendmsg([data], fds)


def run(test: Callable[[Monitor], Awaitable[None]]) -> None:
    async def whole() -> None:
        gc.collect()  # of other tests
        before = descriptors()
        monitor = Monitor()
        await test(monitor)
        monitor.channel.close()
        monitor.theirs.close()
        assert descriptors() == before, "a descriptor of the other side's is left open"

    asyncio.run(whole())


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


def message(kind: int, number: int = 0, body: bytes = b"{}") -> bytes:
    return HEADER.pack(kind, number) + body


def test_messages_and_files_come_in_their_order() -> None:
    async def test(monitor: Monitor) -> None:
        content = sealed("x", b"content")
        monitor.send(message(Kind.PLAIN, 7, b'{"a": 1}'))
        monitor.send(message(Kind.WITH_FILE, 8), content)
        os.close(content)
        await aiountil(lambda: len(monitor.taken) == 2, "both")
        assert monitor.taken == [(1, 7, {"a": 1}, []), (2, 8, {}, [b"content"])]

    run(test)


def test_files_are_passed_on_unread() -> None:
    async def test(monitor: Monitor) -> None:
        monitor.channel.send(Kind.WITH_TWO, 9, files=[SealedFile.of(b"x" * LIMIT), SealedFile.of(b"y")])
        await asyncio.sleep(0)
        _, fds, _, _ = socket.recv_fds(monitor.theirs, 10_000, 4)
        monitor.send(message(Kind.WITH_TWO), *fds)
        monitor.send(message(Kind.WITH_TWO), *reversed(fds))  # the second one is too large
        assert [os.pread(descriptor, 2, 0) for descriptor in fds] == [b"xx", b"y"]
        for descriptor in fds:
            os.close(descriptor)
        await aiountil(lambda: bool(monitor.lost), "the end")
        assert [taken[3] for taken in monitor.taken] == [[b"x" * LIMIT, b"y"]]

    run(test)


def test_what_is_sent_waits_until_it_is_read() -> None:
    async def test(monitor: Monitor) -> None:
        for n in range(2000):
            monitor.channel.send(Kind.WITH_FILE, n, files=[SealedFile.of(b"f" * 100)], text="x" * 1000)
        monitor.theirs.setblocking(False)
        found = 0

        def read() -> bool:
            nonlocal found
            try:
                data, fds, _, _ = socket.recv_fds(monitor.theirs, 10_000, 1)
            except BlockingIOError:
                return False
            os.close(fds[0])
            assert HEADER.unpack_from(data)[1] == found
            found += 1
            return found == 2000

        while not read():
            await asyncio.sleep(0)
        assert not monitor.lost

    run(test)


def test_a_file_that_is_closed_while_it_waits_ends_nothing() -> None:
    """Who sent it has given up; the other side is slow and nothing worse."""

    async def test(monitor: Monitor) -> None:
        sent = 0
        while len(monitor.channel._waiting) < 2:
            monitor.channel.send(Kind.PLAIN, sent)
            sent += 1
        given_up = SealedFile.of(b"x")
        monitor.channel.send(Kind.WITH_FILE, sent, files=[given_up])
        monitor.channel.send(Kind.PLAIN, sent + 1)
        given_up.close()
        monitor.theirs.setblocking(False)
        numbers: list[int] = []

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                while data := monitor.theirs.recv(2 * BODY):
                    numbers.append(HEADER.unpack_from(data)[1])
            return sent + 1 in numbers or bool(monitor.lost)

        await aiountil(came, "the last message")
        assert (numbers, monitor.lost) == ([*range(sent), sent + 1], [])

    run(test)


def test_a_side_that_does_not_read_is_given_up() -> None:
    async def test(monitor: Monitor) -> None:
        for n in range(MOST_WAITING + 1000):
            monitor.channel.send(Kind.PLAIN, n)
        assert monitor.lost == ["it does not read what it is told"]
        monitor.channel.send(Kind.PLAIN)

    run(test)


def unsealed() -> int:
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"x")
    return descriptor


def pipe() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def plain_file() -> int:
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        message(Kind.PLAIN)[:-2],
        message(Kind.PLAIN, body=b"[]"),
        message(Kind.PLAIN, body=b"5"),
        message(Kind.PLAIN, body=b"\xff"),
        message(Kind.PLAIN, body=b"[" * BODY),
        message(Kind.PLAIN, body=b" " * (BODY + 1)),
        message(Kind.PLAIN, body=b'{"odd": 1}'),
        message(Kind.WITH_FILE),
    ],
)
def test_what_is_no_message_ends_it(data: bytes) -> None:
    async def test(monitor: Monitor) -> None:
        monitor.send(data)
        monitor.send(message(Kind.PLAIN))
        await aiountil(lambda: bool(monitor.lost), "the end")
        assert monitor.taken == []

    run(test)


@pytest.mark.parametrize("make", [unsealed, pipe, plain_file, lambda: sealed("x", b"x" * (LIMIT + 1))])
def test_what_is_no_sealed_file_ends_it_and_is_never_waited_for(make: Callable[[], int]) -> None:
    async def test(monitor: Monitor) -> None:
        descriptor = make()
        monitor.send(message(Kind.WITH_FILE), descriptor)
        os.close(descriptor)
        await aiountil(lambda: bool(monitor.lost), "the end")
        assert monitor.taken == []

    run(test)


@pytest.mark.parametrize("number", [1, 2, 4, 100])
def test_descriptors_that_nobody_asked_for_are_closed(number: int) -> None:
    async def test(monitor: Monitor) -> None:
        content = sealed("x", b"x")
        monitor.send(message(Kind.PLAIN), *[content] * number)
        os.close(content)
        await aiountil(lambda: bool(monitor.lost), "the end")

    run(test)


def test_its_end_is_told_once() -> None:
    async def test(monitor: Monitor) -> None:
        monitor.theirs.close()
        await aiountil(lambda: bool(monitor.lost), "the end")
        assert monitor.lost == ["it has ended"]

    run(test)


def test_a_flood_leaves_others_their_turn() -> None:
    async def test(monitor: Monitor) -> None:
        monitor.theirs.setblocking(False)
        turns = 0
        for _ in range(200):
            try:
                while True:
                    monitor.send(message(Kind.PLAIN))
            except BlockingIOError:
                await asyncio.sleep(0)
                turns += 1
        assert turns == 200
        assert len(monitor.taken) > 200

    run(test)


def test_garbage_of_every_kind() -> None:
    """Each message is drawn at random; the channel ends, or takes what has its form. Nothing else happens."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    bodies = [b"{}", b'{"a": []}', b"null", b"{" * 500, json.dumps({"x": "\ud800"}).encode(), b"", b"\0" * 50]
    makers: list[Callable[[], int]] = [unsealed, pipe, plain_file, lambda: sealed("x", b"y")]

    async def one(monitor: Monitor) -> None:
        for _ in range(20):
            if monitor.lost:
                break
            length = draw.choice([0, 3, HEADER.size, HEADER.size + 2, BODY, BODY * 2])
            form = message(draw.choice([0, 1, 2, 3, 65535]), body=draw.choice(bodies))
            data = draw.choice([form, draw.randbytes(length)])
            made = [draw.choice(makers)() for _ in range(draw.choice([0, 0, 1, 2, 3]))]
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                monitor.send(data, *made)
            for descriptor in made:
                os.close(descriptor)
            await asyncio.sleep(0)
        for kind, _, body, files in monitor.taken:
            assert isinstance(body, dict), seed
            assert len(files) == {int(Kind.WITH_FILE): 1, int(Kind.WITH_TWO): 2}.get(kind, 0), seed

    for _ in range(300):
        run(one)
