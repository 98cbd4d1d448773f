"""Finds and ends programs, also where Python or the kernel knows no pidfd."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from uep.workers import programs

DEAF = "trap '' TERM; echo; while :; do sleep 0.05; done"
HEARS = "trap 'exit 3' TERM; echo; while :; do sleep 0.05; done"
STOPPED = "trap 'exit 3' TERM; echo; kill -STOP $$; while :; do sleep 0.05; done"


@pytest.fixture(params=[True, False], ids=["pidfd", "no pidfd"], autouse=True)
def pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.delattr(os, "pidfd_open")


@pytest.fixture
def shells() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three programs of this process, which have said that they are ready."""
    codes = (DEAF, HEARS, STOPPED)
    started = [subprocess.Popen(["/bin/sh", "-c", code], stdout=subprocess.PIPE) for code in codes]
    for each in started:
        assert each.stdout is not None and each.stdout.readline()
    yield started
    for each in started:
        each.kill()
        each.communicate()


def test_asks_once_and_kills_after_the_grace(
    shells: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "GRACE", 2.0)
    pids = {each.pid for each in shells}
    begun = time.monotonic()
    programs.end(lambda: [each for each in programs.below(os.getpid()) if {each.pid, each.parent} & pids])
    assert time.monotonic() - begun >= 2.0
    assert [each.wait(0) for each in shells] == [-9, 3, 3]


def test_nothing_of_those_that_are_left_out(shells: list[subprocess.Popen[bytes]]) -> None:
    found = {each.pid: each for each in programs.below(os.getpid())}
    deaf, hears, _ = (each.pid for each in shells)
    left = {each.pid for each in programs.below(os.getpid(), without=[found[deaf]])}
    assert hears in left
    assert not {each.pid for each in programs.below(deaf)} & left


def test_a_process_with_the_pid_of_another_is_left_alone(shells: list[subprocess.Popen[bytes]]) -> None:
    (deaf,) = (each for each in programs.below(os.getpid()) if each.pid == shells[0].pid)
    with programs.opened([deaf._replace(started="1")]) as living:
        assert living == []
