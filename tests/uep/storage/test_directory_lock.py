"""Two endpoints of one name never use one directory at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.process import signal_ours
from lab.waiting import until
from tests.uep import functions
from tests.uep.in_process import run_endpoint
from tests.uep.program import StartUep
from tests.uep.service import Service
from uep.storage import directory_lock
from uep.storage.directory_lock import lock_directory

HOLD = """
import asyncio, os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uep.storage.directory_lock import lock_directory

asyncio.run(lock_directory(Path(sys.argv[1]), ThreadPoolExecutor(1)))
if child := os.fork():
    print(child, flush=True)
time.sleep(600)
"""


pytestmark = pytest.mark.system


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@contextlib.contextmanager
def moved_in(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has moved in there, and has forked a child since."""
    argv = [sys.executable, "-c", HOLD, str(directory)]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(argv, env={"PYTHONPATH": root}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            signal_ours(child, signal.SIGKILL)


def test_held_until_the_process_ends_however_it_ends(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    """Its own end counts: what it leaves running does not hold the directory."""
    with moved_in(tmp_path) as predecessor:

        async def succeed() -> None:
            waiting = asyncio.ensure_future(lock_directory(tmp_path, thread))
            await asyncio.sleep(1)
            assert not waiting.done()
            predecessor.kill()
            await asyncio.wait_for(waiting, 30)

        asyncio.run(succeed())


def test_one_that_stands_still_is_named_and_not_waited_for_without_end(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_lock, "PATIENCE", 0.5)
    with moved_in(tmp_path) as predecessor:
        predecessor.send_signal(signal.SIGSTOP)
        task = service.send(functions.double, 1)
        assert asyncio.run(run_endpoint(tmp_path, service)) == os.EX_UNAVAILABLE
    notice = service.heartbeat_where(lambda beat: "error" in beat)
    assert f"(process {predecessor.pid} on " in notice["error"]
    assert "does not end" in notice["error"]
    assert str(tmp_path) not in notice["error"]
    assert service.waiting_tasks() == 1, task


def test_a_successor_waits_and_then_takes_what_is_there(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    """The predecessor stands still in the middle of a task; it is ended while its successor waits."""
    predecessor = start_uep()
    begun = service.send(functions.touch_and_sleep, str(tmp_path / "ran"), 300)
    until((tmp_path / "ran").exists, "the task to run")
    predecessor.process.send_signal(signal.SIGSTOP)
    successor = start_uep()
    successor.wait_ready()
    predecessor.log_says(f"waiting for an earlier endpoint to end: process {predecessor.process.pid} on")  # one log
    later = service.send(functions.double, 3)
    assert "ThreadPoolEngine started" not in successor.log.read_text().partition("waiting for an earlier")[2]
    no_longer_wanted = start_uep()
    no_longer_wanted.wait_ready()
    assert no_longer_wanted.stop() == 0
    predecessor.stop(signal.SIGKILL)
    results = service.results(2)
    assert "endpoint stopped" in results[begun].data
    assert service.value(results[later]) == 6


def test_a_link_in_the_place_of_the_file(tmp_path: Path, thread: ThreadPoolExecutor) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        asyncio.run(lock_directory(tmp_path, thread))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    number: int,
    tmp_path: Path,
    thread: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lockf(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    asyncio.run(lock_directory(tmp_path, thread))
    assert "nothing keeps another process out of here" in caplog.text
