"""Which connections a session opens, watches and closes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.uep.broker.stubs import ENDPOINT
from uep.broker.channels import SessionChannels
from wire.errors import BrokerError, ConnectionLost, Unreachable
from wire.queues import EndpointCredentials, Source, Target


class StubConnection:
    """Makes publishers and consumers that are told apart by their names."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lost = asyncio.Event()
        self.reason: BrokerError = ConnectionLost(f"lost {url}")
        self.closed = False
        self.publishers = 0
        self.consuming: dict[str, Any] = {}

    async def publisher(self) -> str:
        self.publishers += 1
        return f"publisher {self.publishers} of {self.url}"

    async def consume(self, queue: str, receive: Callable[..., None], **how: Any) -> str:
        self.consuming = {"queue": queue, **how}
        return f"consumer of {self.url}"

    async def close(self) -> None:
        self.closed = True


class Broker:
    """Opens stub connections, but not to `dead`."""

    def __init__(self, dead: str = "") -> None:
        self.opened: dict[str, StubConnection] = {}
        self._dead = dead

    async def open(self, url: str) -> Any:
        if url == self._dead:
            raise Unreachable("nobody there")
        self.opened[url] = StubConnection(url)
        return self.opened[url]


def play(urls: str, game: Callable[[SessionChannels, StubConnection, Broker], Awaitable[None]], dead: str = "") -> None:
    """`urls` are those of tasks, results and heartbeats."""

    async def run() -> None:
        tasks, results, heartbeats = urls.split()
        credentials = EndpointCredentials(
            ENDPOINT, Source(tasks, "queue"), Target(results, "r", "r"), Target(heartbeats, "h", "h")
        )
        own: Any = StubConnection(heartbeats)
        broker = Broker(dead)
        await game(SessionChannels(own, credentials, broker.open), own, broker)

    asyncio.run(run())


def nothing(_: object) -> None:
    raise AssertionError("no delivery was sent")


def test_one_url_is_one_connection_and_one_channel_to_publish_on() -> None:
    async def game(channels: SessionChannels, own: StubConnection, broker: Broker) -> None:
        assert str(await channels.heartbeats()) == str(await channels.results()) == "publisher 1 of same"
        assert str(await channels.consume(nothing, 7, 8)) == "consumer of same"
        assert own.consuming == {"queue": "queue", "prefetch": 7, "most_bytes": 8, "exclusive": True}
        await channels.close()
        assert (broker.opened, own.closed) == ({}, False)  # the connection is its caller's

    play("same same same", game)


def test_each_further_url_has_a_connection_which_is_closed_in_the_end() -> None:
    async def game(channels: SessionChannels, own: StubConnection, broker: Broker) -> None:
        assert str(await channels.heartbeats()) == "publisher 1 of h"
        assert str(await channels.results()) == "publisher 1 of r"
        assert str(await channels.consume(nothing, 1, 1)) == "consumer of t"
        assert list(broker.opened) == ["r", "t"]
        await channels.close()
        assert all(connection.closed for connection in broker.opened.values())
        assert not own.closed

    play("t r h", game)


@pytest.mark.parametrize("which", ["h", "r", "t"])
def test_any_of_them_may_be_lost(which: str) -> None:
    async def game(channels: SessionChannels, own: StubConnection, broker: Broker) -> None:
        await channels.results()
        await channels.consume(nothing, 1, 1)
        waiting = asyncio.ensure_future(channels.lost())
        await asyncio.sleep(0)
        assert not waiting.done()
        {"h": own, **broker.opened}[which].lost.set()
        with pytest.raises(ConnectionLost, match=f"lost {which}"):
            await waiting

    play("t r h", game)


def test_a_connection_that_cannot_be_opened_ends_the_session_and_leaves_nothing_open() -> None:
    async def game(channels: SessionChannels, own: StubConnection, broker: Broker) -> None:
        await channels.results()
        with pytest.raises(Unreachable):
            await channels.consume(nothing, 1, 1)
        await channels.close()
        assert broker.opened["r"].closed

    play("t r h", game, dead="t")
