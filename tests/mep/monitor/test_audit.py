from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from mep.monitor.audit import MAX_TASK_RECORD, AuditTrail
from mep.monitor.audit_file import AuditError
from mep.request.account import Account
from tests.conftest import need


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(path: Path) -> list[str]:
    return [record["event"] for record in records(path)]


@pytest.fixture
def disk(tmp_path: Path, root: None) -> Iterator[Path]:
    """A file system of 4 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=755", "tmpfs", folder], check=False)
    need(made.returncode == 0, "needs to mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64k", disk], check=True)


def test_audit_lines_are_json(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.log")
    trail.record("refused", "r1", stage="identity", reason="line\nbreak")
    trail.record("started", "r2", pid=7)
    trail.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["refused", "started"]
    assert lines[0]["reason"] == "line\nbreak"
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_a_line_says_when_and_what(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.log")
    trail.record("exited", "r1", path=tmp_path, seconds=1.5, missing=None, odd="\ud83d \u2028 \0 ü")
    trail.close()
    text = (tmp_path / "audit.log").read_text(encoding="ascii")
    assert text.count("\n") == 1
    assert text.endswith("}\n")
    line = json.loads(text)
    when = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(timezone.utc) - when).total_seconds()) < 10
    assert list(line) == ["event", "request", "path", "seconds", "missing", "odd"]
    assert (line["path"], line["odd"]) == (str(tmp_path), "\ud83d \u2028 \0 ü")


def test_the_log_has_each_decision_once_for_people(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mep.audit")
    trail = AuditTrail(tmp_path / "audit.log")
    trail.record("received", "r1", username="alice@example.org", odd="a\nb (c", missing=None)
    trail.close()
    AuditTrail(None).record("refused", "r2", stage="options", reason="no such thing", account="alice")
    received, refused = caplog.records
    assert received.getMessage() == '[r1] received (username=alice@example.org odd="a\\nb (c")'
    assert refused.getMessage() == "[r2] refused at stage options: no such thing (account=alice)", "also without a file"
    assert (received.levelno, refused.levelno) == (logging.INFO, logging.WARNING)


def test_earlier_lines_and_the_mode_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text('{"event": "earlier"}\n')
    path.chmod(0o640)
    trail = AuditTrail(path)
    trail.record("later", "r1")
    trail.close()
    assert events(path) == ["earlier", "later"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_after_a_rotation_the_next_line_makes_a_new_file(tmp_path: Path) -> None:
    path, rotated = tmp_path / "audit.log", tmp_path / "audit.log.1"
    trail = AuditTrail(path)
    trail.record("one", "r1")
    path.rename(rotated)
    trail.record("two", "r2")
    assert (events(rotated), events(path)) == (["one"], ["two"])
    assert path.stat().st_mode & 0o777 == 0o600
    rotated.unlink()
    path.rename(rotated)
    path.touch(mode=0o640)  # logrotate's `create`
    trail.record("three", "r3")
    assert (events(rotated), events(path)) == (["two"], ["three"])
    before = len(os.listdir("/proc/self/fd"))
    path.unlink()
    trail.record("four", "r4")
    assert events(path) == ["four"]
    assert len(os.listdir("/proc/self/fd")) == before, "what was rotated away is closed"
    trail.close()


def test_a_file_that_is_truncated_is_gone_on_with(tmp_path: Path) -> None:
    path, copy = tmp_path / "audit.log", tmp_path / "audit.log.1"
    trail = AuditTrail(path)
    trail.record("one", "r1")
    copy.write_bytes(path.read_bytes())
    os.truncate(path, 0)  # logrotate's `copytruncate`
    trail.record("two", "r2")
    trail.close()
    assert (events(copy), events(path)) == (["one"], ["two"])
    assert b"\0" not in path.read_bytes()


def test_a_line_that_cannot_be_written_is_told_and_the_next_one_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    trail = AuditTrail(folder / "audit.log")
    folder.rename(tmp_path / "away")
    for number in range(3):
        trail.record("one", str(number))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert f"could not be written: {folder}/audit.log: No such file" in told[0]
    assert "make its folder" in told[0]
    folder.mkdir()
    trail.record("two", "r2")
    trail.record("three", "r3")
    trail.close()
    assert events(folder / "audit.log") == ["two", "three"]
    assert [record.get("lost_lines") for record in records(folder / "audit.log")] == [3, None]
    again = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert again == [f"audit lines are written to {folder}/audit.log again; 3 were lost"]


def test_a_full_disk_tears_one_line_and_no_other(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = disk / "audit.log"
    trail = AuditTrail(path)
    for number in range(5):
        trail.record("written", str(number), text="x" * 1500)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2, told  # the one that was torn, and those for which there was no room at all
    assert "only a part" in told[0]
    assert "No space left on device; make room" in told[1]
    make_room(disk)
    trail.record("after", "r6")
    trail.close()
    *whole, torn, last = path.read_text().splitlines()
    assert [json.loads(line)["request"] for line in whole] == ["0", "1"]
    assert torn.startswith('{"time": ')
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(torn)
    assert json.loads(last)["event"] == "after"
    assert json.loads(last)["lost_lines"] == 3


def test_a_line_that_another_manager_left_torn_stays_apart(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text('{"event": "whole"}\n{"event": "to')
    trail = AuditTrail(path)
    trail.record("one", "r1")
    trail.record("two", "r2")
    trail.close()
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event": "to'
    assert [json.loads(line)["event"] for line in lines[2:]] == ["one", "two"]


def test_a_new_file_does_not_begin_with_the_end_of_a_torn_line(disk: Path) -> None:
    path = disk / "audit.log"
    trail = AuditTrail(path)
    trail.record("torn", "r1", text="x" * 5000)
    make_room(disk)
    path.rename(path.with_suffix(".1"))
    trail.record("whole", "r2")
    trail.close()
    assert events(path) == ["whole"]


def test_what_must_be_on_record_raises_until_it_can_be(disk: Path) -> None:
    path = disk / "audit.log"
    trail = AuditTrail(path, required=True)
    trail.record("one", "r1", text="x" * 2500)
    for _ in range(3):
        with pytest.raises(AuditError, match=rf"^{path}: .*; make room on its file system$"):
            trail.record("two", "r2", text="x" * 2500)
    make_room(disk)
    trail.record("three", "r3")
    trail.close()
    assert [json.loads(path.read_text().splitlines()[number])["event"] for number in (0, -1)] == ["one", "three"]


def test_what_must_be_on_record_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    synced: list[list[str]] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(events(path)))
    AuditTrail(path).record("one", "r1")
    assert synced == [], "costs too much for what need not be"
    AuditTrail(path, required=True).record("two", "r2")
    assert synced == [["one", "two"]]


def test_what_must_be_on_record_needs_a_place() -> None:
    with pytest.raises(AuditError, match="set audit_log_path"):
        AuditTrail(None, required=True)


def test_lines_of_several_managers_stay_whole(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mep.monitor.audit import AuditTrail\n"
        "trail = AuditTrail(Path(sys.argv[1]))\n"
        "for number in range(200): trail.record(sys.argv[2], str(number), text='x' * 5000)"
    )
    path = tmp_path / "audit.log"
    writers = [subprocess.Popen([sys.executable, "-c", script, path, name]) for name in ("a", "b", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    # A line is empty when a manager opened the file while another was writing.
    found = [json.loads(line)["event"] for line in path.read_text().splitlines() if line]
    assert sorted(found) == ["a"] * 200 + ["b"] * 200 + ["c"] * 200


@pytest.mark.parametrize("place", ["folder", "nosuch/audit.log", "file/audit.log"])
def test_a_place_where_no_file_can_be_is_an_error_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=place):
        AuditTrail(tmp_path / place)


def link_elsewhere(path: Path) -> None:
    path.with_name("victim").touch(mode=0o600)
    path.symlink_to("victim")


def second_name(path: Path) -> None:
    path.touch(mode=0o600)
    path.with_name("victim").hardlink_to(path)


def second_name_where_others_write(path: Path) -> None:
    """As somebody can have put it there, for a file of root's to be written to."""
    second_name(path)
    path.parent.chmod(0o1777)


def somebody_elses(path: Path) -> None:
    path.touch(mode=0o600)
    os.chown(path, 65534, 65534)


def open_folder(path: Path) -> None:
    path.touch(mode=0o600)
    path.parent.chmod(0o777)


def folder_of_somebody(path: Path) -> None:
    path.touch(mode=0o600)
    os.chown(path.parent, 65534, 65534)


def linked_folder(path: Path) -> None:
    """The way to the file has a link that somebody else may lead elsewhere."""
    path.parent.rename(path.parent.with_name("real"))
    path.parent.symlink_to("real")
    os.chown(path.parent, 65534, 65534, follow_symlinks=False)


UNTRUSTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "fifo": (os.mkfifo, "no regular file; remove it"),
    "folder": (Path.mkdir, "must name a file"),
    "link": (link_elsewhere, "symbolic link is not followed"),
    "link to nothing": (lambda path: path.symlink_to("nosuch"), "symbolic link is not followed"),
    "hard link in an open folder": (
        second_name_where_others_write,
        "a folder of its own, which only root may write to",
    ),
    "somebody else's": (somebody_elses, "chown root .*audit.log$"),
    "group may write": (lambda path: (path.touch(), path.chmod(0o620)), "chmod go-w .*audit.log$"),
    "others may write": (lambda path: (path.touch(), path.chmod(0o602)), "chmod go-w .*audit.log$"),
    "others may write to its folder": (open_folder, "chmod go-w .*/place$"),
    "somebody else's folder": (folder_of_somebody, "chown root .*/place$"),
    "somebody else's link on the way": (linked_folder, "chown -h root .*/place$"),
}


@pytest.mark.parametrize("what", UNTRUSTED)
def test_what_others_could_change_or_lead_elsewhere_is_refused(
    tmp_path: Path, root: None, no_hang: None, what: str
) -> None:
    spoil, remedy = UNTRUSTED[what]
    path = tmp_path / "place" / "audit.log"
    path.parent.mkdir(mode=0o755)
    before = len(os.listdir("/proc/self/fd"))
    spoil(path)
    with pytest.raises(AuditError, match=remedy) as caught:
        AuditTrail(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (path.parent / "nosuch").exists()


@pytest.mark.parametrize("what", UNTRUSTED)
def test_nor_is_it_taken_in_place_of_a_rotated_file(tmp_path: Path, root: None, no_hang: None, what: str) -> None:
    spoil, remedy = UNTRUSTED[what]
    path = tmp_path / "place" / "audit.log"
    path.parent.mkdir(mode=0o755)
    trail = AuditTrail(path, required=True)
    trail.record("one", "r1")
    path.rename(path.with_suffix(".1"))
    spoil(path)
    with pytest.raises(AuditError, match=remedy):
        trail.record("two", "r2")
    trail.close()
    kept = next(tmp_path.glob("*/audit.1"))
    assert events(kept) == ["one"]
    assert not any(victim.read_bytes() for victim in tmp_path.glob("*/victim"))


def test_a_second_name_is_told_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where fs.protected_hardlinks is 0, whoever can enter its folder can give it one, and cannot write by it."""
    path = tmp_path / "audit.log"
    second_name(path)
    trail = AuditTrail(path, required=True)
    trail.record("one", "r1")
    path.rename(path.with_suffix(".1"))
    path.with_suffix(".1").unlink()
    (tmp_path / "victim").rename(path)
    second_name(path)
    trail.record("two", "r2")
    trail.close()
    AuditTrail(path).close()
    assert events(path) == ["hard link", "one", "two", "hard link"]
    told = records(path)[0]["reason"]
    assert told in caplog.text
    assert told.startswith(f"{path} has 2 names") and f"find / -xdev -samefile {path}" in told


def test_a_link_to_the_rotated_file_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    trail = AuditTrail(path, required=True)
    path.rename(path.with_suffix(".1"))
    path.symlink_to("audit.1")
    with pytest.raises(AuditError, match="symbolic link"):
        trail.record("one", "r1")
    trail.close()


def test_a_fifo_with_a_reader_gets_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "audit.log", 0o600)
    reader = os.open(tmp_path / "audit.log", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(AuditError, match="no regular file"):
        AuditTrail(tmp_path / "audit.log")
    assert os.read(reader, 1) == b""
    os.close(reader)


UEP = "0c1d1c8e-8a52-4a8e-9b2e-1f6f0b8f4d10"
TASK, FUNCTION = "8f0cdd63-6a4c-4d7b-8f10-7d2a4a5a2d8b", "f6a4b1a6-5d1f-4e47-9b76-0f1b0b4d9a55"


def test_what_a_user_endpoint_says_of_a_task(tmp_path: Path, alice: Account, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "audit.log"
    trail = AuditTrail(path, required=True)
    trail.task("r1", "uep.1", alice, f"fid={FUNCTION} tid={TASK} bid= EXEC_START".encode(), uep=UEP, pid=7)
    placed = f"fid={FUNCTION} tid={TASK} bid=0 jid=1234[7].pbs-01 RUNNING"
    trail.task("r1", "uep.1", alice, placed.encode(), uep=UEP, pid=7)
    refused = f"fid= tid={TASK} bid=block-0 FAILED - not permitted - at all"
    trail.task("r1", "uep.1", alice, refused.encode(), uep=UEP, pid=7)
    trail.close()
    first, running, second = records(path)
    assert datetime.fromisoformat(first.pop("time"))
    who = {"event": "task", "request": "r1", "endpoint": "uep.1", "account": "alice", "uid": 54321}
    who |= {"uep": UEP, "pid": 7}
    assert first == {**who, "function": FUNCTION, "task": TASK, "action": "EXEC_START"}
    del second["time"], running["time"]
    where = {"block": "0", "job": "1234[7].pbs-01"}
    assert running == {**who, "function": FUNCTION, "task": TASK, **where, "action": "RUNNING"}
    what = {"task": TASK, "block": "block-0", "action": "FAILED", "message": "not permitted - at all"}
    assert second == {**who, **what}
    assert caplog.messages == [], "one user's tasks could drown what is told of others"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\xff\x1b[2J\x7f\r\n",
        f"fid= tid={TASK} bid= RECEIVED\n".encode() + b'{"event": "started", "account": "root", "uid": 0}',
        f'fid= tid={TASK} bid= FAILED - "}}\n{{"event": "started"}}'.encode(),
        f"fid= tid={TASK} bid= received".encode(),
        b"fid= tid= bid= RECEIVED",
        f"fid= tid={TASK} bid=0 jid= RUNNING".encode(),
        f"fid= tid={TASK} bid=0 jid=".encode() + b"1" * 129 + b" RUNNING",
        f"fid= tid={TASK} bid=0 jid=1 jid=2 RUNNING".encode(),
        b"fid=" + b"f" * 65 + f" tid={TASK} bid= RECEIVED".encode(),
        b"event=started account=root uid=0",
        f"fid={FUNCTION} tid={TASK} bid= FAILED - account=root\u2028\u202e".encode(),
        f"fid= tid={TASK} bid= FAILED - ".encode() + b"x" * 100_000,
        b"\n" * 100_000,
    ],
)
def test_a_user_cannot_forge_a_record(tmp_path: Path, alice: Account, said: bytes) -> None:
    path = tmp_path / "audit.log"
    trail = AuditTrail(path)
    trail.task("r1", "uep.1", alice, said)
    trail.close()
    assert path.stat().st_size < MAX_TASK_RECORD + 500
    assert path.read_text(encoding="ascii").count("\n") == 1
    (record,) = records(path)
    assert [record[key] for key in ("event", "request", "endpoint", "account", "uid")] == [
        "task",
        "r1",
        "uep.1",
        "alice",
        54321,
    ]
    assert record.keys() <= {
        *("time", "event", "request", "endpoint", "account", "uid", "uep", "pid"),
        *("function", "task", "block", "job", "action", "message", "text", "cut_off_bytes"),
    }
    assert all(value.isprintable() for value in record.values() if isinstance(value, str))
    assert record.get("cut_off_bytes", 0) == max(0, len(said) - MAX_TASK_RECORD)


@pytest.mark.parametrize("after", [b"x", b" ", b" account=root", b"\n", b'\n{"event": "started"}'])
def test_what_is_only_nearly_a_record_is_kept_as_text(tmp_path: Path, alice: Account, after: bytes) -> None:
    trail = AuditTrail(tmp_path / "audit.log")
    trail.task("r1", "uep.1", alice, f"fid= tid={TASK} bid= RECEIVED".encode() + after)
    trail.close()
    (record,) = records(tmp_path / "audit.log")
    assert record["text"] == f"fid= tid={TASK} bid= RECEIVED{after.decode()}".replace("\n", "?")
    assert "task" not in record


def test_a_task_that_must_be_on_record_raises(disk: Path, alice: Account) -> None:
    trail = AuditTrail(disk / "audit.log", required=True)
    trail.record("one", "r1", text="x" * 3900)
    with pytest.raises(AuditError, match="make room"):
        trail.task("r1", "uep.1", alice, b"x" * 1000)
    trail.close()


def test_the_last_of_the_file_system_is_not_for_tasks(disk: Path, alice: Account) -> None:
    make_room(disk)
    trail = AuditTrail(disk / "audit.log", required=True)
    with pytest.raises(AuditError, match=r"last 5 % of its file system are not for tasks.*make room"):
        for _ in range(100):
            trail.task("r1", "uep.1", alice, b"x" * 1000)
    trail.record("starting", "r2", text="x" * 1000)
    trail.close()
    assert events(disk / "audit.log")[-1] == "starting"
