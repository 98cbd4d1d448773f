"""Nothing is lost, and nothing hangs, when the disk is full, slow or not as it was."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.broker import PrivateBroker
from lab.waiting import until
from tests.uep.durability.tally import MANY, Tally, work_for_a_while, work_for_longer
from tests.uep.in_process import play_with_endpoint
from tests.uep.program import THREADS, StartUep, kept_results
from tests.uep.service import Service
from uep.broker import courier, outbox

pytestmark = pytest.mark.system


def on(disk: Path) -> str:
    """A configuration with the endpoint's files on that disk, but for its log."""
    return f"paths: {{endpoint_dir: {disk}, endpoint_log: ~/.globus_compute/uep.test/endpoint.log}}\n{THREADS}"


def test_full_disk(start_uep: StartUep, tally: Tally, broker: PrivateBroker, small_disk: Path) -> None:
    filler = small_disk / "filler"
    uep = start_uep(on(small_disk))
    tally.send(20)
    tally.receive(20)
    fill(filler)
    tally.send(MANY)
    tally.receive(len(tally.sent))
    uep.log_says("results cannot be stored (No space left on device): kept in memory only")
    running = tally.send(10, work_for_a_while)
    until(lambda: len(tally.runs()) == len(tally.sent), "all tasks to run", 60)
    broker.stop()
    uep.log_says("next attempt")
    broker.start()
    tally.service.connect()
    tally.receive(len(tally.sent))
    filler.unlink()
    last = tally.send(10)
    tally.settle()
    uep.log_says("storing the results")
    assert tally.errors() == {}
    assert {*running, *last} < tally.got.keys()
    assert tally.runs() == [1] * len(tally.sent)
    until(lambda: kept_results(small_disk) == [], "all results to be removed", 60)


def test_results_in_memory_are_stored_when_there_is_room(
    start_uep: StartUep, tally: Tally, broker: PrivateBroker, small_disk: Path
) -> None:
    uep = start_uep(on(small_disk))
    tally.send(1)
    tally.receive(1)
    fill(small_disk / "filler")
    early = tally.send(2, work_for_a_while)
    late = tally.send(1, work_for_longer)
    until(lambda: len(tally.runs()) == 4, "four tasks to run", 60)
    broker.stop()
    uep.log_says("kept in memory only")
    (small_disk / "filler").unlink()
    uep.log_says("storing the results")
    until(lambda: {*early, *late} <= set(kept_results(small_disk)), "all results to be stored", 60)
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    broker.start()
    tally.service.connect()
    start_uep(on(small_disk))
    tally.settle()
    assert {*early, *late} < tally.got.keys()
    assert tally.errors() == {}


def test_crowded_disk(service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that nobody takes: no more tasks are accepted than there may be results."""
    monkeypatch.setattr(outbox, "MOST_RESULTS", 20)
    monkeypatch.setattr(courier, "MOST_SENT", 3)
    monkeypatch.setattr(courier, "AGAIN", 0.2)
    results = f"{service.endpoint_id}.results"

    def play() -> None:
        service.channel.queue_unbind(results, "results", results)
        tally.send(20)
        until(lambda: len(kept_results(tmp_path / "e")) == 20, "twenty results to be kept", 60)
        tally.send(20)
        until(lambda: service.waiting_tasks() < 20, "tasks to come", 60)
        service.channel.queue_purge(f"{service.endpoint_id}.heartbeats")
        for _ in range(3):
            service.heartbeat()
        assert len(tally.runs()) == 20
        service.channel.queue_bind(results, "results", results)
        tally.settle()

    play_with_endpoint(play, tmp_path / "e", service, service.credentials())
    assert tally.errors() == {}
    assert tally.runs() == [1] * 40


@pytest.mark.parametrize("how", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["removed", "cut"])
def test_results_that_somebody_destroyed(
    service: Service,
    tally: Tally,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(courier, "AGAIN", 0.2)
    results, stored = f"{service.endpoint_id}.results", tmp_path / "e" / "unacked_results"

    def refusals() -> int:
        return caplog.text.count("not taken by the broker")

    def play() -> None:
        service.channel.queue_unbind(results, "results", results)
        (task,) = tally.send(1)
        until(lambda: kept_results(tmp_path / "e") == [task], "the result to be kept", 60)
        (file,) = stored.iterdir()
        how(file)
        before = refusals()
        until(lambda: refusals() >= before + 2, "what was read before it was destroyed to be refused", 60)
        service.channel.queue_bind(results, "results", results)
        tally.settle()
        gone = {task: "The result of this task was removed from the endpoint's disk."}
        assert tally.errors() == ({} if how is Path.unlink else gone)  # an open file lives on

    play_with_endpoint(play, tmp_path / "e", service, service.credentials())


def test_slow_disk(service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is run when it is on record, a result sent when it is on disk; heartbeats never wait for that."""
    results = f"{service.endpoint_id}.results"
    real = os.fdatasync
    go_on = {"open_tasks": threading.Event(), "unacked_results": threading.Event()}

    def hang(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        assert next(event for name, event in go_on.items() if name in path.parts).wait(60)
        real(fd)

    def heartbeats() -> None:
        service.channel.queue_purge(f"{service.endpoint_id}.heartbeats")
        for _ in range(3):
            service.heartbeat()

    def play() -> None:
        tally.send(1)
        tally.settle()
        monkeypatch.setattr(os, "fdatasync", hang)
        tally.send(3)
        heartbeats()
        assert len(tally.runs()) == 1
        go_on["open_tasks"].set()
        until(lambda: len(tally.runs()) == 4, "four tasks to run", 60)
        heartbeats()
        assert service.channel.queue_declare(results, passive=True).method.message_count == 0
        go_on["unacked_results"].set()
        tally.settle()

    play_with_endpoint(play, tmp_path / "e", service, service.credentials())
    assert tally.errors() == {}


def test_not_idle_while_a_task_waits_for_the_disk(
    service: Service, tally: Tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that has come is movement, also before it is on record."""
    real, go_on, waits = os.fdatasync, threading.Event(), threading.Event()

    def hang(fd: int) -> None:
        waits.set()
        assert go_on.wait(60)
        real(fd)

    def play() -> None:
        tally.send(1)
        until(lambda: len(tally.runs()) == 1, "a task to run", 60)
        monkeypatch.setattr(os, "fdatasync", hang)
        tally.send(1)
        assert waits.wait(30)
        service.channel.queue_purge(f"{service.endpoint_id}.heartbeats")
        for _ in range(6):
            assert service.heartbeat()["active"]
        go_on.set()
        tally.settle()

    settings = "heartbeat_period: 0.3\nidle_heartbeats_soft: 3\nidle_heartbeats_hard: 100\n" + THREADS.split("\n", 1)[1]
    play_with_endpoint(play, tmp_path / "e", service, service.credentials(), settings)
    assert tally.errors() == {}


def fill(path: Path) -> None:
    """Leaves no room on the disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
