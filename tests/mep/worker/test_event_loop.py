"""The manager's event loop has no lasting thread."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from mep.worker.event_loop import EventLoop


def look_up(host: str) -> tuple[list[str], set[str]]:
    """The addresses of a host, and the names of the threads that came for it and stayed."""
    before = set(threading.enumerate())

    async def ask() -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, 80, type=socket.SOCK_STREAM)
        return [address[0] for *_, address in found]

    loop = EventLoop()
    try:
        found = loop.run_until_complete(ask())
    finally:
        loop.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    return found, {thread.name for thread in set(threading.enumerate()) - before}


def test_an_address_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr(threading, "Thread", refuse)
    assert look_up("127.0.0.1") == (["127.0.0.1"], set())


def test_a_name_is_looked_up_in_a_thread_that_ends() -> None:
    found, left = look_up("localhost")
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found
    assert left == set()


def test_a_name_that_nobody_has_is_an_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        look_up("no-such-host.invalid")


def test_nobody_waits_for_a_look_up_that_was_given_up() -> None:
    async def give_up() -> None:
        looking = asyncio.ensure_future(asyncio.get_running_loop().getaddrinfo("no-such-host.invalid", 80))
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and thread.daemon:
                await asyncio.to_thread(thread.join, 10)

    loop = EventLoop()
    try:
        loop.run_until_complete(give_up())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
