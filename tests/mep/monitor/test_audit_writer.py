"""The process that writes the audit trail: what is on the disk, who waits for a slow one, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.waiting import aiountil, until
from mep.monitor import audit_program, audit_writer
from mep.monitor.audit import AuditTrail, Line
from mep.monitor.audit_file import AuditError, AuditFile
from mep.processes import executed
from mep.request.account import Account
from tests.hanging import hang


def events(path: Path) -> list[str]:
    return [line["event"] for line in records(path)]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def writers() -> list[psutil.Process]:
    """Children of this process that are writers and no zombies: other tests may have left children of other kinds."""
    found = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in found if Path(f"/proc/{each.pid}/comm").read_text().strip() == "mep-audit"]


def run(trail: AuditTrail, story: Callable[[], Awaitable[None]]) -> None:
    async def told() -> None:
        trail.start()
        try:
            await asyncio.wait_for(story(), 60)  # type: ignore[arg-type]
        finally:
            await trail.stop()
            trail.close()

    asyncio.run(told())


@contextlib.contextmanager
def hanging(path: Path) -> Iterator[None]:
    """As a file server that does not answer: whoever opens what has the name of the trail waits."""
    folder = hang(path)
    try:
        yield
    finally:
        folder.stop()


def test_lines_come_in_their_order_and_stop_waits_for_them(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    trail = AuditTrail(path)

    async def story() -> None:
        for number in range(1000):
            trail.record("one", str(number), text="x" * 5000)

    run(trail, story)
    assert [line["request"] for line in records(path)] == [str(number) for number in range(1000)]
    assert not writers()


def test_what_is_confirmed_is_on_the_disk_and_one_wait_is_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "audit.log", tmp_path / "synced"

    def fdatasync(_file: int) -> None:
        with synced.open("a") as file:
            file.write(f"{len(events(path))}\n")

    def start(_program: str, connection: int, file: str, sync: str, *_second: str) -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:  # the writer, in which the disk is watched
            os.dup2(connection, 0)
            os.closerange(3, 4096)
            audit_program.serve(socket.socket(fileno=0), Path(file), sync=sync == "1")
            os._exit(0)
        return pid, os.pidfd_open(pid)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(executed, "start", start)
    trail = AuditTrail(path, required=True)

    async def story() -> None:
        lines = [trail.record("one", str(number)) for number in range(100)]
        await trail.confirm(lines[-1])
        assert int(synced.read_text().split()[-1]) == 100

    run(trail, story)
    assert len(synced.read_text().split()) < 20


def test_what_cannot_be_written_is_told_to_who_waits(tmp_path: Path, alice: Account) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    trail = AuditTrail(folder / "audit.log", required=True)

    async def story() -> None:
        await trail.confirm(trail.record("one", "r1"))
        folder.rename(tmp_path / "away")
        with pytest.raises(AuditError, match="make its folder"):
            await trail.confirm(trail.record("two", "r2"))
        with pytest.raises(AuditError, match="make its folder"):
            await trail.confirm_tasks([trail.task("r3", "uep.1", alice, b"x")])
        assert "2 lines lost" in trail.trouble()
        folder.mkdir()
        await trail.confirm(trail.record("three", "r4"))
        assert trail.trouble() == ""

    run(trail, story)
    assert [(line["event"], line.get("lost_lines")) for line in records(folder / "audit.log")] == [("three", 2)]


def test_after_a_rotation_a_new_file_is_made_and_a_second_name_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.log"
    trail = AuditTrail(path, required=True)

    async def story() -> None:
        await trail.confirm(trail.record("one", "r1"))
        path.rename(path.with_suffix(".1"))
        path.touch(mode=0o600)
        (tmp_path / "second").hardlink_to(path)
        await trail.confirm(trail.record("two", "r2"))

    run(trail, story)
    assert events(path.with_suffix(".1")) == ["one"]
    assert events(path) == ["hard link", "two"]
    assert "2 names" in caplog.text


def test_a_writer_that_dies_is_replaced_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.log"
    trail = AuditTrail(path, required=True)

    async def story() -> None:
        await trail.confirm(trail.record("one", "r1"))
        (writer,) = writers()
        writer.suspend()
        waiting = trail.record("two", "r2")
        writer.kill()
        await trail.confirm(waiting)
        await trail.confirm(trail.record("three", "r3"))
        (other,) = writers()
        assert other.pid != writer.pid

    run(trail, story)
    assert [(line["event"], line.get("again")) for line in records(path)] == [
        ("one", None),
        ("two", True),
        ("three", None),
    ]
    assert "is started anew" in caplog.text


def test_a_writer_that_stands_still_holds_up_only_who_must_wait(tmp_path: Path, alice: Account) -> None:
    path, patience = tmp_path / "audit.log", [60.0]
    trail = AuditTrail(path, required=True, patience=lambda: patience[0])

    async def story() -> None:
        await trail.confirm(trail.record("one", "r1"))
        (writer,) = writers()
        writer.suspend()
        patience[0] = 0.1
        try:
            with pytest.raises(AuditError, match=r"0.1 s \(start_patience\)"):
                await trail.confirm(trail.record("two", "r2"))
            tasks = asyncio.ensure_future(trail.confirm_tasks([trail.task("r3", "uep.1", alice, b"x")]))
            trail.record("three", "r4")
            await asyncio.sleep(0)
            assert not tasks.done(), "its user endpoint waits with it"
        finally:
            writer.resume()
        await tasks

    run(trail, story)
    assert events(path) == ["one", "two", "task", "three"], "what was late is there all the same"


def test_a_disk_that_hangs_holds_up_nobody_else(
    tmp_path: Path, root: None, monkeypatch: pytest.MonkeyPatch, alice: Account
) -> None:
    monkeypatch.setattr(audit_writer, "SLOW", 0.0)
    folder = tmp_path / "trail"
    folder.mkdir()
    trail = AuditTrail(folder / "audit.log", patience=lambda: 0.1)

    async def story() -> None:
        with hanging(folder):
            for number in range(100):
                await trail.confirm(trail.record("one", str(number)))  # not required, so nobody waits
            await aiountil(lambda: "100 lines have waited" in trail.trouble(), "that it is told")
        await aiountil(lambda: not trail.trouble(), "its end")

    run(trail, story)
    lines = records(folder / "audit.log")
    assert len(lines) + sum(line.get("lost_lines", 0) for line in lines) == 100


def test_lines_that_wait_have_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_writer, "MOST_WAITING", 5000)
    path = tmp_path / "audit.log"
    trail = AuditTrail(path, required=True)

    async def story() -> None:
        await trail.confirm(trail.record("first", "r1"))
        (writer,) = writers()
        writer.suspend()
        try:
            lines = [trail.record("one", str(number), text="x" * 1000) for number in range(10)]
            with pytest.raises(AuditError, match="too many lines"):
                await trail.confirm(lines[-1])
        finally:
            writer.resume()
        await trail.confirm(lines[0])
        await aiountil(lambda: len(events(path)) == 5, "all that had room")
        await trail.confirm(trail.record("last", "r2"))

    run(trail, story)
    assert records(path)[-1]["lost_lines"] == 6


def test_what_was_sent_is_written_though_the_monitor_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    AuditFile(path, print).close()
    reading, writing = os.pipe()
    monitor = os.fork()
    if monitor == 0:
        os.close(reading)
        asyncio.run(_killed(path, writing))
        os._exit(1)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(monitor, 0)[1]) == -signal.SIGKILL
    writer = int(os.read(reading, 100))
    os.close(reading)
    os.kill(writer, signal.SIGCONT)
    until(lambda: len(path.read_text().splitlines()) == 11, "all lines")
    until(lambda: not psutil.pid_exists(writer), "the end of the writer")


async def _killed(path: Path, told: int) -> None:
    """A monitor that is killed when it has handed lines over."""
    trail = AuditTrail(path, required=True)
    trail.start()
    await trail.confirm(trail.record("one", "r"))
    (writer,) = writers()
    writer.suspend()
    for number in range(10):
        trail.record("more", str(number))
    await asyncio.sleep(0)
    os.write(told, str(writer.pid).encode())
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_signal_to_all_of_a_terminal_does_not_end_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.log"
    trail = AuditTrail(path, required=True)

    async def story() -> None:
        await trail.confirm(trail.record("one", "r1"))
        (writer,) = writers()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            writer.send_signal(number)
        await trail.confirm(trail.record("two", "r2"))
        assert writers() == [writer]

    run(trail, story)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_line_of_no_trail_is_confirmed() -> None:
    asyncio.run(AuditTrail(None).confirm(Line()))
