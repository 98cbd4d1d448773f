"""Staying connected, against a real broker."""

from __future__ import annotations

import asyncio

import pytest

from lab.broker import PrivateBroker
from lab.proxy import Proxy
from lab.waiting import aiountil
from wire.connection import Connection
from wire.errors import ConnectionLost
from wire.reconnect import stay_connected

pytestmark = pytest.mark.system


def test_a_lost_connection_is_made_again(broker: PrivateBroker) -> None:
    """Loses it twice in the middle of a session; the third session comes to its end."""
    sessions: list[Connection] = []
    troubles: list[str] = []

    async def session(connection: Connection) -> None:
        sessions.append(connection)
        if len(sessions) < 3:
            connection.abandon(ConnectionLost(f"cut {len(sessions)}"))
            await asyncio.sleep(10)

    async def work() -> None:
        await asyncio.wait_for(
            stay_connected(lambda: Connection.open(broker.url), session, lambda e, _: troubles.append(str(e))), 20
        )

    asyncio.run(work())
    assert troubles == ["cut 1", "cut 2"]
    assert all(connection.lost.is_set() for connection in sessions)


def test_waits_grow_and_begin_small_again_after_a_good_connection(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was there until a moment ago is tried again at once; one that stays away, ever more seldom."""
    monkeypatch.setattr("wire.reconnect.STABLE", 0.5)
    waits: list[list[float]] = [[]]

    async def session(connection: Connection) -> None:
        waits.append([])
        await asyncio.Event().wait()

    async def work(network: Proxy) -> None:
        url = broker.url.replace(f":{broker.port}/", f":{network.port}/")
        network.cut()
        staying = asyncio.ensure_future(
            stay_connected(lambda: Connection.open(url), session, lambda _, wait: waits[-1].append(wait))
        )
        for outage in range(3):
            await aiountil(lambda outage=outage: len(waits[outage]) >= 4, "four attempts in vain")
            network.resume()
            await aiountil(lambda outage=outage: len(waits) >= outage + 2, "a connection")
            await asyncio.sleep(1)  # longer than STABLE
            network.cut()
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)

    with Proxy(broker.port) as network:
        asyncio.run(asyncio.wait_for(work(network), 120))
    ceilings = [0.2, 0.4, 0.8, 1.6]
    for outage in waits[:3]:
        assert all(c / 2 <= wait <= c for wait, c in zip(outage, ceilings, strict=False)), waits
    assert len({wait for outage in waits[:3] for wait in outage[:1]}) == 3, "with jitter"


def test_waits_go_on_growing_when_sessions_do_not_last(broker: PrivateBroker) -> None:
    waits: list[float] = []

    async def session(connection: Connection) -> None:
        if len(waits) < 5:
            connection.abandon(ConnectionLost("refused"))
            await asyncio.sleep(10)

    asyncio.run(stay_connected(lambda: Connection.open(broker.url), session, lambda _, wait: waits.append(wait)))
    assert all(c / 2 <= wait <= c for wait, c in zip(waits, [0.2, 0.4, 0.8, 1.6, 3.2], strict=True))
