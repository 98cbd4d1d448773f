"""Nothing is lost, and nothing hangs, whatever dies: endpoint, worker, broker, connection."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.broker import PrivateBroker
from lab.process import signal_ours
from lab.proxy import Proxy
from lab.waiting import until
from tests.uep.durability.tally import MANY, STOPPED, Tally, lives, work_long
from tests.uep.in_process import play_with_endpoint
from tests.uep.program import PROCESSES, THREADS, StartUep, kept_results
from tests.uep.service import Service

pytestmark = pytest.mark.system


def through(network: Proxy, service: Service, broker: PrivateBroker) -> dict[str, Any]:
    """Credentials whose broker is on the other side of `network`."""
    return service.credentials(broker.url.replace(f":{broker.port}/", f":{network.port}/"))


@pytest.mark.parametrize("configuration", [THREADS, PROCESSES], ids=["threads", "processes"])
def test_endpoint_killed(configuration: str, start_uep: StartUep, tally: Tally) -> None:
    tally.send(MANY)
    for _ in range(3):
        uep = start_uep(configuration)
        tally.receive(len(tally.got) + 30)
        tally.send(MANY // 3)
        assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
        uep.wait_alone()
    uep = start_uep(configuration)
    tally.settle()
    errors = tally.errors()
    assert errors
    assert all(STOPPED in text for text in errors.values())
    assert max(tally.runs()) == 1
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_broker_killed(start_uep: StartUep, tally: Tally, broker: PrivateBroker) -> None:
    tally.send(MANY)
    uep = start_uep()
    for _ in range(2):
        tally.receive(len(tally.got) + 30)
        tally.service.close()
        broker.kill()
        uep.log_says("next attempt")
        broker.start()
        tally.service.connect()
        tally.send(MANY // 3)
    tally.settle()
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)


def test_connection_cut(start_uep: StartUep, tally: Tally, network: Proxy, broker: PrivateBroker) -> None:
    tally.send(MANY)
    uep = start_uep(amqp_creds=through(network, tally.service, broker))
    for _ in range(3):
        tally.receive(len(tally.got) + 30)
        network.cut()
        before = network.connections
        tally.send(MANY // 3)
        time.sleep(1.5)
        network.resume()
        until(lambda before=before: network.connections > before, "a new connection", 60)
    tally.settle()
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)


def test_connection_stalled(
    tally: Tally, network: Proxy, broker: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the missing heartbeats tell. The broker has to miss them too: until then the task queue is taken."""
    monkeypatch.setattr("wire.connection.HEARTBEAT", 2)
    monkeypatch.setattr("wire.connection.OPEN_TIMEOUT", 3)

    def play() -> None:
        tally.send(MANY)
        tally.receive(30)
        network.stall()
        before = network.connections
        tally.send(MANY // 3)
        time.sleep(10)
        network.resume()
        tally.settle()
        assert network.connections > before

    play_with_endpoint(play, tmp_path / "e", tally.service, through(network, tally.service, broker))
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)


def test_pool_worker_killed(start_uep: StartUep, tally: Tally) -> None:
    start_uep(PROCESSES)
    (long,) = tally.send(1, work_long)
    mark = tally.folder / "0"
    until(lambda: mark.exists() and mark.read_text().endswith("\n"), "the task to run", 60)
    tally.send(MANY)
    tally.receive(30)
    signal_ours(int(mark.read_text()), signal.SIGKILL)
    tally.settle()
    errors = tally.errors()
    assert errors.keys() == {long}
    assert "worker process of the task died: ended by signal 9" in errors[long]
    assert tally.runs() == [1] * len(tally.sent)


def test_told_to_stop_at_any_moment(start_uep: StartUep, tally: Tally, flow: Callable[[], None]) -> None:
    for n in range(12):
        uep = start_uep()
        if n % 3:  # else perhaps before it has checked in
            until(lambda n=n, uep=uep: lives(uep) > n - n // 3 - 1, "it to take tasks", 60)
        time.sleep(random.uniform(0, 0.4))
        assert uep.stop() in (0, -signal.SIGTERM)  # the latter: before it has a word to say
    start_uep()
    flow()
    tally.settle()
    assert tally.errors() == {}  # each is short enough for the grace
    assert tally.runs() == [1] * len(tally.sent)
    assert len(tally.got) == len(tally.sent) == sum(len(results) for results in tally.got.values())


def test_idle_in_the_moment_when_a_task_comes(start_uep: StartUep, tally: Tally) -> None:
    """Whoever goes idle has a successor at once, as from a manager that has got a start command with the task."""
    settings = "heartbeat_period: 0.1\nidle_heartbeats_soft: 1\nidle_heartbeats_hard: 20\n" + THREADS.split("\n", 1)[1]
    uep, ended = start_uep(settings), 0
    while ended < 12:
        (task,) = tally.send(1)
        deadline = time.monotonic() + 60
        while task not in tally.got:
            assert time.monotonic() < deadline, uep.log.read_text()
            if uep.process.poll() is not None:
                assert uep.process.returncode == 0
                uep, ended = start_uep(settings), ended + 1
            tally.receive_what_is_there()
        time.sleep(random.uniform(0, 0.25))
    tally.settle()
    assert tally.errors() == {}
    assert tally.runs() == [1] * len(tally.sent)


def test_killed_at_any_moment(start_uep: StartUep, tally: Tally, flow: Callable[[], None]) -> None:
    """Twenty times. No task is run twice; what ran, and whose end nobody saw, is an error."""
    for _ in range(20):
        uep = start_uep()
        time.sleep(random.uniform(0.2, 1.2))
        assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    flow()
    uep = start_uep()
    tally.settle()
    errors = tally.errors()
    assert all(STOPPED in text for text in errors.values())
    assert max(tally.runs()) == 1
    unanswered = {tally.sent[task] for task in errors}
    assert {int(mark.name) for mark in tally.folder.iterdir()} >= set(tally.sent.values()) - unanswered
    until(lambda: kept_results(uep.directory) == [], "all results to be removed", 60)
