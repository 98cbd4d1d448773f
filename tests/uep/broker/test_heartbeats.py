"""Heartbeats of an engine that answers, fails or hangs, over a broker that confirms or not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lab.waiting import aiountil
from tests.uep.broker.stubs import ENDPOINT, TARGET, StubEngine, StubPublisher
from uep.broker import heartbeats as module
from uep.broker.heartbeats import Heartbeats
from uep.config import EndpointConfig
from uep.handover import HandOver
from wire import messages
from wire.errors import ConnectionLost, NotDelivered

CONFIG = EndpointConfig(engine={"type": "Stub"}, raw="engine: Stub", heartbeat_period=7.0)


def play(directory: Path, ask: Callable[[], dict[str, Any]], game: Callable[[Heartbeats], Awaitable[None]]) -> None:
    async def run() -> None:
        handed = HandOver(ENDPOINT, {}, CONFIG.raw, {"told": "by the manager"})
        await game(Heartbeats(handed, CONFIG, StubEngine(directory, ask)))

    asyncio.run(run())


def states(publisher: StubPublisher) -> list[dict[str, Any]]:
    reports = [messages.unpack(body) for body, _ in publisher.sent]
    assert all(isinstance(each, messages.StatusReport) and each.endpoint_id == ENDPOINT for each in reports)
    return [dict(each.global_state) for each in reports]  # type: ignore[union-attr]


def test_what_a_heartbeat_says(tmp_path: Path) -> None:
    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        await heartbeats.beat(active=False)
        await heartbeats.start_failed("no such queue")
        first, last, notice = states(publisher)
        assert first["workers"] == 3
        assert (first["told"], first["config_raw"]) == ("by the manager", "engine: Stub")
        assert (first["posix_pid"], first["heartbeat_period"], first["active"]) == (os.getpid(), 7.0, True)
        assert last == {**first, "active": False}
        assert notice == {"error": "no such queue", "heartbeat_period": 3}

    play(tmp_path, lambda: {"workers": 3}, game)


def test_a_task_that_has_used_up_all_threads_does_not_end_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def game(heartbeats: Heartbeats) -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        publisher = StubPublisher(confirms=True)
        heartbeats.engine_runs = True
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        assert [state["workers"] for state in states(publisher)] == [3]

    play(tmp_path, lambda: {"workers": 3}, game)


def test_without_a_session_nothing_is_sent(tmp_path: Path) -> None:
    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.beat()
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        heartbeats.detach()
        await heartbeats.beat()
        assert len(publisher.sent) == 1

    play(tmp_path, dict, game)


def test_a_check_in_that_is_not_confirmed_ends_the_session(tmp_path: Path) -> None:
    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher()
        checking_in = asyncio.ensure_future(heartbeats.check_in(publisher, TARGET))  # type: ignore[arg-type]
        await aiountil(lambda: publisher.sent, "the check-in to be sent")
        publisher.sent[0][1].set_exception(ConnectionLost("gone"))
        with pytest.raises(ConnectionLost):
            await checking_in
        await heartbeats.beat()
        assert len(publisher.sent) == 1

    play(tmp_path, dict, game)


def test_a_heartbeat_that_is_not_delivered_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFIRM_TIME", 0.1)

    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        publisher._confirms = False
        await heartbeats.beat()  # the broker says nothing
        beating = asyncio.ensure_future(heartbeats.beat())
        await aiountil(lambda: len(publisher.sent) == 3, "another heartbeat to be sent")
        publisher.sent[2][1].set_exception(NotDelivered("refused"))
        await beating

    play(tmp_path, dict, game)


def test_figures_are_asked_for_once_the_engine_runs(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask() -> dict[str, Any]:
        asked.append(threading.current_thread().name)
        return {"asked": len(asked)}

    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        heartbeats.engine_runs = True
        await heartbeats.beat()
        await heartbeats.beat()
        assert [state["asked"] for state in states(publisher)] == [1, 2, 3]
        assert threading.main_thread().name not in asked[1:]

    play(tmp_path, ask, game)


def test_an_engine_whose_figures_fail(tmp_path: Path) -> None:
    answers = iter([{"good": 1}])

    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        heartbeats.engine_runs = True
        await heartbeats.beat()
        assert [state["good"] for state in states(publisher)] == [1, 1]

    play(tmp_path, lambda: next(answers, None) or {}["no figures"], game)


def test_an_engine_that_hangs_is_asked_once_and_holds_up_neither_heartbeats_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATUS_TIME", 0.05)
    go_on, asked, answered = threading.Event(), [], []

    def ask() -> dict[str, Any]:
        asked.append(1)
        if len(asked) > 1:
            go_on.wait(20)
            answered.append(1)
        return {"asked": len(asked)}

    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        heartbeats.engine_runs = True
        for _ in range(3):
            await heartbeats.beat()
        assert [state["asked"] for state in states(publisher)] == [1, 1, 1, 1]
        assert len(asked) == 2

    play(tmp_path, ask, game)
    assert answered == []  # the loop has ended all the same
    go_on.set()


def test_figures_that_came_late_are_in_the_next_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_TIME", 0.05)
    go_on, asked = threading.Event(), []

    def ask() -> dict[str, Any]:
        asked.append(1)
        assert len(asked) == 1 or go_on.wait(20)
        return {"asked": len(asked)}

    async def game(heartbeats: Heartbeats) -> None:
        publisher = StubPublisher(confirms=True)
        await heartbeats.check_in(publisher, TARGET)  # type: ignore[arg-type]
        heartbeats.engine_runs = True
        await heartbeats.beat()
        go_on.set()
        monkeypatch.setattr(module, "STATUS_TIME", 20)
        await heartbeats.beat()
        assert [state["asked"] for state in states(publisher)] == [1, 1, 2]

    play(tmp_path, ask, game)
