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

LIMIT = 30.0
"""Seconds after which a test has failed."""


@contextmanager
def served(answer: Callable[[bytes], bytes], threads: int) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
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


def test_look_ups_that_wait_do_not_hold_up_others() -> None:
    released, waiting = threading.Event(), threading.Semaphore(0)

    def answer(line: bytes) -> bytes:
        if line.startswith(b"slow"):
            waiting.release()
            released.wait(LIMIT)
        return line

    with served(answer, threads=3) as client, client.makefile("rb") as answers:
        client.sendall(b"slow 1\nslow 2\n")
        assert waiting.acquire(timeout=LIMIT)
        assert waiting.acquire(timeout=LIMIT)
        client.sendall(b"quick 1\nquick 2\n")
        assert [answers.readline(), answers.readline()] == [b"quick 1\n", b"quick 2\n"]
        released.set()
        assert {answers.readline(), answers.readline()} == {b"slow 1\n", b"slow 2\n"}


def test_no_more_look_ups_at_once_than_threads() -> None:
    released, lock = threading.Event(), threading.Lock()
    running = most = 0

    def answer(line: bytes) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        released.wait(0.01)
        with lock:
            running -= 1
        return line

    with served(answer, threads=3) as client, client.makefile("rb") as answers:
        lines = {b"%d\n" % i for i in range(50)}
        client.sendall(b"".join(lines))
        assert {answers.readline() for _ in lines} == lines
    assert most <= 3


def test_long_answers_are_not_mixed_up() -> None:
    with served(lambda line: line.strip() * 100_000 + b"\n", threads=4) as client, client.makefile("rb") as answers:
        client.sendall(b"".join(b"%d\n" % (i % 10) for i in range(40)))
        assert all(len(set(answers.readline().strip())) == 1 for _ in range(40))


def ask(**request: object) -> dict[str, object]:
    answer: dict[str, object] = json.loads(server.answer(json.dumps({"id": 7, **request}).encode()))
    assert answer.pop("id") == 7
    return answer


def test_what_is_found_is_answered() -> None:
    found = ask(find=pwd.getpwuid(os.getuid()).pw_name)["found"]
    assert isinstance(found, dict)
    assert found["uid"] == os.getuid()
    assert ask(find="no-such-account") == {"found": None}
    assert ask(find="\ud800") == {"found": None}
    assert ask(group_ids=["root", "no-such-group"]) == {"found": [0, None]}


def test_a_look_up_that_fails_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_username: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(look_up, "account", fail)
    assert "Input/output error" in str(ask(find="root")["failed"])


def test_it_ends_with_its_manager_even_if_a_look_up_does_not_end() -> None:
    program = (
        "import time; from mep.accounts import look_up; "
        "from mep.accounts import server; "
        "look_up.account = lambda name: time.sleep(3600); server.main()"
    )
    ours, theirs = socket.socketpair()
    with subprocess.Popen([sys.executable, "-c", program], stdin=theirs.fileno()) as helper, ours:
        theirs.close()
        ours.settimeout(LIMIT)
        ours.sendall(b'{"id": 0, "find": "slow"}\n{"id": 1, "group_ids": []}\n')
        assert json.loads(ours.recv(1000)) == {"id": 1, "found": []}
        ours.close()
        assert helper.wait(LIMIT) == 0
