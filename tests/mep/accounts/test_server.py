"""The dispatcher of the name service helper, with look-ups that take as long as a test wants them to."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mep.accounts import look_up, server
from mep.processes import message, name_service_protocol
from mep.processes.message import HEADER, Message
from mep.processes.name_service_protocol import ToNameService
from mep.request.account import Account, ShellFault

LIMIT = 30.0
"""Seconds after which a test has failed."""


@contextmanager
def served(answer: Callable[[Message], server.Answer], threads: int) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(LIMIT)
    serving = threading.Thread(target=server.serve, args=(theirs, answer, threads))
    before = set(threading.enumerate())
    serving.start()
    try:
        yield ours
    finally:
        ours.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(LIMIT)
            assert not thread.is_alive()
        theirs.close()


def tell(client: socket.socket, number: int, **body: object) -> None:
    message.send(client, message.pack(1, number, body))


def numbers(client: socket.socket, count: int) -> list[int]:
    """Of the next answers."""
    return [came[1] for _ in range(count) if (came := message.receive(client, {})) is not None]


def test_look_ups_that_wait_do_not_hold_up_others() -> None:
    released, waiting = threading.Event(), threading.Semaphore(0)

    def answer(question: Message) -> server.Answer:
        if question[2]:
            waiting.release()
            released.wait(LIMIT)
        return message.pack(2, question[1], {}), ()

    with served(answer, threads=3) as client:
        tell(client, 1, slow=1)
        tell(client, 2, slow=1)
        assert waiting.acquire(timeout=LIMIT)
        assert waiting.acquire(timeout=LIMIT)
        tell(client, 3)
        tell(client, 4)
        assert numbers(client, 2) == [3, 4]
        released.set()
        assert sorted(numbers(client, 2)) == [1, 2]


def test_no_more_look_ups_at_once_than_threads() -> None:
    released, lock = threading.Event(), threading.Lock()
    running = most = 0

    def answer(question: Message) -> server.Answer:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        released.wait(0.01)
        with lock:
            running -= 1
        return message.pack(2, question[1], {}), ()

    with served(answer, threads=3) as client:
        for number in range(50):
            tell(client, number)
        assert sorted(numbers(client, 50)) == list(range(50))
    assert most <= 3


def test_there_are_as_many_threads_as_there_were_look_ups_at_once() -> None:
    before = threading.active_count() + 1  # the one that serves

    def answer(question: Message) -> server.Answer:
        return message.pack(2, question[1], {}), ()

    with served(answer, threads=100) as client:
        for number in range(50):
            tell(client, number)
            assert numbers(client, 1) == [number]
        assert threading.active_count() < before + 25, "a thread is idle a moment after its answer"


def ask(kind: ToNameService, name: str) -> object:
    data, files = server.answer((kind, 7, {"name": name}, ()))
    kind_said, number = HEADER.unpack_from(data)
    assert number == 7
    found = name_service_protocol.read(kind_said, json.loads(data[HEADER.size :]), files)
    return str(found) if isinstance(found, Exception) else found


def test_what_is_found_is_answered() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    assert ask(ToNameService.ACCOUNT, name) == look_up.account(name)
    assert ask(ToNameService.ACCOUNT, "no-such-account") is None
    assert ask(ToNameService.ACCOUNT, "\ud800") is None
    assert ask(ToNameService.GROUP, "root") == 0
    assert ask(ToNameService.GROUP, "no-such-group") is None


def test_a_look_up_that_fails_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_username: str) -> None:
        raise OSError(5, "Input/output error" + "\U0001f600" * 9999)

    monkeypatch.setattr(look_up, "account", fail)
    assert "Input/output error" in str(ask(ToNameService.ACCOUNT, "root"))


@pytest.mark.parametrize("gecos", ["J\xfcrgen " * 50, "\udcfc\udcff"])
def test_an_account_with_texts_as_sites_have_them(monkeypatch: pytest.MonkeyPatch, gecos: str) -> None:
    found = Account("alice", 5, 6, gecos, "/home/alice", "/bin/nologin", tuple(range(60_000)), ShellFault.UNLISTED)
    monkeypatch.setattr(look_up, "account", lambda _name: found)
    assert ask(ToNameService.ACCOUNT, "alice") == found


def test_an_account_that_fits_into_no_message_is_a_look_up_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_up, "account", lambda name: Account(name, 5, 6, "x" * 9000, "/", "", (6,)))
    assert "bytes" in str(ask(ToNameService.ACCOUNT, "alice"))


def test_it_ends_with_its_manager_even_if_a_look_up_does_not_end() -> None:
    program = (
        "import time; from mep.accounts import look_up; "
        "from mep.accounts import server; "
        "look_up.account = lambda name: time.sleep(3600); server.main()"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", program], stdin=theirs.fileno()) as helper, ours:
        theirs.close()
        ours.settimeout(LIMIT)
        tell(ours, 1, name="slow")
        message.send(ours, message.pack(ToNameService.GROUP, 2, {"name": "root"}))
        assert numbers(ours, 2) == [0, 2]
        ours.close()
        assert helper.wait(LIMIT) == 0
