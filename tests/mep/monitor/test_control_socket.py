"""Requests that act: who may ask, what a request is, and that no caller costs another one anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.waiting import aiountil
from mep.cli import asking
from mep.cli.asking import NoAnswer, Reloaded
from mep.monitor import control_socket
from mep.monitor.control_socket import MOST, Answer, ControlSocket
from mep.monitor.reload_requests import ReloadRequests
from mep.processes import named_sockets
from mep.processes.control_protocol import (
    NAME,
    REQUEST_SIZE,
    VERSION,
    Kind,
    Outcome,
    Request,
    read_answer,
    read_request,
    write_answer,
    write_request,
)
from mep.processes.named_sockets import Peer

POOL = ThreadPoolExecutor(2 * MOST)
RELOAD = write_request(Request(Kind.RELOAD, 7))


class Site:
    """A control socket in the loop. asked: what came to it; each is answered at once, unless `holds`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[Request, Peer]] = []
        self.holds = False
        self.waiting: list[Answer] = []
        self.control = ControlSocket(folder, self._act)

    def _act(self, request: Request, caller: Peer, answer: Answer) -> None:
        self.asked.append((request, caller))
        if self.holds:
            self.waiting.append(answer)
        else:
            answer(Outcome.DONE, "done")

    def caller(self) -> socket.socket:
        """Connected. One that waits for an answer does so for 60 s."""
        with named_sockets.connected(self.folder, NAME, socket.SOCK_SEQPACKET, 60) as connection:
            return connection.dup()

    def say(self, *records: bytes) -> bytes:
        """What is answered to these; nothing when the connection was just ended."""
        with self.caller() as connection:
            connection.settimeout(60)
            with contextlib.suppress(ConnectionError):
                for record in records:
                    connection.sendall(record)
            try:
                return connection.recv(100_000)
            except ConnectionError:
                return b""


def run(folder: Path, story: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        site = Site(folder)
        site.control.open()
        gc.collect()  # what others have left
        before = len(os.listdir("/proc/self/fd"))
        try:
            await story(site)
            await aiountil(lambda: not site.control._callers, "all connections to be ended")
            assert len(os.listdir("/proc/self/fd")) <= before
        finally:
            site.control.close()
        assert not (folder / NAME).exists()

    asyncio.run(whole())


async def off(work: Callable[..., object], *arguments: object) -> object:
    """Runs what waits in a thread."""
    return await asyncio.get_running_loop().run_in_executor(POOL, work, *arguments)


def test_a_request_is_answered_and_the_kernel_says_who_asks(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
        assert await off(asking.reload, tmp_path) == Reloaded(taken=True, text="done")
        assert site.asked == [(Request(Kind.RELOAD, 1), Peer(os.getpid(), os.getuid()))]

    run(tmp_path, story)


def test_only_root_may_ask(tmp_path: Path, root: None) -> None:
    """The kernel's word counts, not only the modes."""

    async def story(site: Site) -> None:
        (tmp_path / NAME).chmod(0o666)
        folder = os.open(tmp_path, os.O_RDONLY)
        tmp_path.chmod(0o755)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                os.fchdir(folder)
                os.setgid(65534)
                os.setuid(65534)
                connection.connect(NAME)
                connection.send(RELOAD)
                os._exit(3 if connection.recv(100) else 0)
            os._exit(0)
        os.close(folder)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert site.asked == []

    run(tmp_path, story)


@pytest.mark.parametrize(
    "record",
    [
        RELOAD[:-1],
        RELOAD + b"\0",
        RELOAD[:1],
        b"x" * 100_000,
        b"\xff" * REQUEST_SIZE,
        RELOAD[:8] + b"\1" + RELOAD[9:],  # a field that has no meaning yet
        RELOAD[:-1] + b"x",  # a reason, where there is none
        struct.pack("!HH", VERSION, 9) + RELOAD[4:],
    ],
)
def test_what_makes_no_sense_ends_its_connection_only(tmp_path: Path, record: bytes) -> None:
    async def story(site: Site) -> None:
        said = await off(site.say, record)
        assert isinstance(said, bytes)
        if said:  # the kernel may tell of the end first
            assert read_answer(said, 7)[0] is Outcome.SENSELESS
        assert site.asked == []
        assert await off(asking.reload, tmp_path) == Reloaded(taken=True, text="done")

    run(tmp_path, story)


def test_other_versions_are_told_apart(tmp_path: Path) -> None:
    """Before an upgrade is finished, `mep` and the manager may be of two versions: neither waits for the other."""

    async def story(site: Site) -> None:
        said = await off(site.say, struct.pack("!HH", VERSION + 1, 1) + b"of another form")
        assert isinstance(said, bytes)
        outcome, text = read_answer(said, 7)
        assert outcome is Outcome.SENSELESS and f"version {VERSION + 1}" in text

    run(tmp_path, story)
    with pytest.raises(ValueError, match=f"version {VERSION + 1}"):
        read_answer(struct.pack("!HHI", VERSION + 1, 1, 7), 7)
    with pytest.raises(NoAnswer, match="earlier version"):
        asking.reload(tmp_path)
    (tmp_path / NAME).touch()
    with pytest.raises(NoAnswer, match="still starting"):
        asking.reload(tmp_path)


def test_texts_that_are_for_later_kinds() -> None:
    with pytest.raises(ValueError, match="concerns nobody"):
        write_request(Request(Kind.RELOAD, 1, "alice", "because"))
    assert read_request(RELOAD) == Request(Kind.RELOAD, 7)
    assert len(write_answer(Outcome.REFUSED, 7, "ä" * 100_000)) < 40_000


def test_who_says_nothing_makes_way(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        silent = [await asyncio.to_thread(site.caller) for _ in range(MOST + 4)]
        assert await off(asking.reload, tmp_path) == Reloaded(taken=True, text="done")
        for connection in silent:
            connection.close()

    run(tmp_path, story)


def test_who_says_nothing_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "PATIENCE", 0.05)

    async def story(site: Site) -> None:
        assert await off(site.say) == b""

    run(tmp_path, story)


def test_who_waits_for_an_answer_is_not_ended_and_who_is_too_many_waits(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.holds = True
        waiting = [asyncio.create_task(off(asking.reload, tmp_path)) for _ in range(MOST)]
        await aiountil(lambda: len(site.waiting) == MOST, "as many as there may be")
        late = asyncio.create_task(off(asking.reload, tmp_path))
        assert all(caller._patience.cancelled() for caller in site.control._callers)
        while site.control._later is None:  # it has been seen, and is not let in
            await asyncio.sleep(0.01)
        assert not any(task.done() for task in (*waiting, late))
        site.holds = False
        for answer in site.waiting:
            answer(Outcome.REFUSED, "no")
        assert await asyncio.gather(*waiting) == [Reloaded(taken=False, text="no")] * MOST
        assert await late == Reloaded(taken=True, text="done")

    run(tmp_path, story)


def test_a_manager_that_ends_says_nothing_more(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.holds = True
        waiting = asyncio.create_task(off(asking.reload, tmp_path))
        await aiountil(lambda: bool(site.waiting), "the request")
        site.control.close()
        with pytest.raises(NoAnswer, match="ended before"):
            await waiting
        site.waiting[0](Outcome.DONE, "too late")
        site.control.open()

    run(tmp_path, story)


def test_callers_at_random(tmp_path: Path) -> None:
    """Half records, whole ones, several, descriptors, silence, floods: whoever means it is answered meanwhile."""
    seed = random.randrange(2**32)

    def record(draw: random.Random) -> bytes:
        if draw.random() < 0.3:
            return draw.randbytes(draw.choice([0, 1, 2, 8, REQUEST_SIZE - 1, REQUEST_SIZE, REQUEST_SIZE + 1, 60_000]))
        changed = bytearray(RELOAD)
        for _ in range(draw.randrange(3)):
            changed[draw.choice([*range(12), *range(REQUEST_SIZE)])] = draw.randrange(256)
        return bytes(changed[: draw.choice([REQUEST_SIZE, REQUEST_SIZE, draw.randrange(REQUEST_SIZE)])])

    def hostile(site: Site, number: int) -> None:
        draw, kept, null = random.Random(f"{seed} {number}"), list[socket.socket](), os.open("/dev/null", os.O_RDONLY)
        for _ in range(700):
            connection = site.caller()
            with contextlib.suppress(OSError):
                for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 2, 5])):
                    socket.send_fds(connection, [record(draw)], [null] * draw.choice([0, 0, 0, 1, 50]))
            if draw.random() < 0.9:
                connection.close()
            else:
                kept.append(connection)
            if len(kept) > 3:
                kept.pop(0).close()
        os.close(null)
        for connection in kept:
            connection.close()

    async def story(site: Site) -> None:
        attacks = [asyncio.create_task(off(hostile, site, number)) for number in range(3)]
        answered = 0
        while not all(task.done() for task in attacks):
            assert await off(asking.reload, tmp_path) == Reloaded(taken=True, text="done"), seed
            answered += 1
        await asyncio.gather(*attacks)
        assert len([request for request, _ in site.asked if request.number == 1]) >= answered, seed
        assert {(request.kind, request.target, request.reason) for request, _ in site.asked} == {(Kind.RELOAD, "", "")}

    run(tmp_path, story)


def test_each_who_asks_is_told_of_a_reload_that_began_afterwards() -> None:
    begun, told = 0, list[tuple[int, str]]()

    def reload() -> None:
        nonlocal begun
        begun += 1

    def ask(number: int) -> None:
        requests.ask(lambda _taken, text: told.append((number, text)))

    async def story() -> None:
        ask(1)
        assert begun == 1
        ask(2)
        ask(3)
        requests.tell(True, "first")
        assert told == [(1, "first")]
        await aiountil(lambda: begun == 2, "the next one")
        reload()  # a signal, which takes its place
        requests.tell(False, "second")
        assert told[1:] == [(2, "second"), (3, "second")]
        requests.tell(True, "nobody's")
        ask(4)
        ask(5)
        requests.tell(True, "")
        requests.close()
        await asyncio.sleep(0)
        assert begun == 4, "none for who is not there any more"

    requests = ReloadRequests(reload)
    asyncio.run(story())
