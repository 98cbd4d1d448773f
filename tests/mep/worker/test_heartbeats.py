"""Heartbeats of the manager, through a publisher that notes them."""

from __future__ import annotations

import asyncio
from typing import Any

from mep.worker.heartbeats import Heartbeats
from tests.mep.commands import MANAGER, target
from wire.messages import StatusReport, unpack
from wire.queues import Target, read_target

TARGET = read_target(target("heartbeats"), "heartbeat_queue_info")


class Connection:
    """Stands for a connection and its publisher. `enough` is set with the heartbeat of this number."""

    def __init__(self, enough: int) -> None:
        self.periods: list[Any] = []
        self.enough = asyncio.Event()
        self._enough = enough

    async def publisher(self) -> Connection:
        return self

    async def publish(self, where: Target, body: bytes) -> None:
        report = unpack(body)
        assert isinstance(report, StatusReport)
        assert (where, report.endpoint_id) == (TARGET, MANAGER)
        self.periods.append(report.global_state["heartbeat_period"])
        if len(self.periods) == self._enough:
            self.enough.set()


def periods_until_stopped(enough: int, period: float, *, goodbye: bool) -> list[Any]:
    """Those of the heartbeats of a session that is stopped once there have been so many."""

    async def beat() -> list[Any]:
        connection, heartbeats = Connection(enough), Heartbeats(MANAGER, lambda: period)
        session = asyncio.ensure_future(heartbeats.session(connection, TARGET))  # type: ignore[arg-type]
        await connection.enough.wait()
        heartbeats.stop(goodbye=goodbye)
        await session
        return connection.periods

    return asyncio.run(beat())


def test_one_every_period_and_a_last_one_that_says_good_bye() -> None:
    *periods, last = periods_until_stopped(3, 0.01, goodbye=True)
    assert len(periods) >= 3
    assert set(periods) == {0.01}
    assert last == 0


def test_no_last_one_where_another_manager_comes_next() -> None:
    assert periods_until_stopped(1, 3600.0, goodbye=False) == [3600.0]


def test_the_period_in_force_counts() -> None:
    async def beat() -> list[Any]:
        periods = iter([0.01, 0.02, 0.03])
        connection, heartbeats = Connection(3), Heartbeats(MANAGER, lambda: next(periods, 3600.0))
        session = asyncio.ensure_future(heartbeats.session(connection, TARGET))  # type: ignore[arg-type]
        await connection.enough.wait()
        session.cancel()
        return connection.periods

    assert asyncio.run(beat())[:3] == [0.01, 0.02, 0.03]


def test_a_stop_does_not_wait_for_the_period() -> None:
    assert periods_until_stopped(1, 3600.0, goodbye=True) == [3600.0, 0]


def test_stopped_before_its_first_session_it_says_only_good_bye() -> None:
    async def beat() -> list[Any]:
        connection, heartbeats = Connection(1), Heartbeats(MANAGER, lambda: 1.0)
        heartbeats.stop(goodbye=True)
        await heartbeats.session(connection, TARGET)  # type: ignore[arg-type]
        return connection.periods

    assert asyncio.run(beat()) == [0]
