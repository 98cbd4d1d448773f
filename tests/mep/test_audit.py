from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

import pytest

from mep.audit import AuditTrail


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


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


def test_the_log_has_the_same_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mep.audit")
    trail = AuditTrail(tmp_path / "audit.log")
    trail.record("received", "r1")
    trail.close()
    assert caplog.messages == (tmp_path / "audit.log").read_text().splitlines()
    AuditTrail(None).record("refused", "r2")
    assert json.loads(caplog.messages[-1])["event"] == "refused", "also without a file"


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


def test_a_line_that_cannot_be_written_is_told_and_the_next_one_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "audit"
    folder.mkdir()
    trail = AuditTrail(folder / "audit.log")
    folder.rename(tmp_path / "away")
    trail.record("one", "r1")
    assert "could not be written: No such file" in caplog.text
    folder.mkdir()
    trail.record("two", "r2")
    trail.close()
    assert events(folder / "audit.log") == ["two"]


def test_a_full_disk_is_told(caplog: pytest.LogCaptureFixture) -> None:
    trail = AuditTrail(Path("/dev/full"))
    trail.record("one", "r1")
    trail.close()
    assert "could not be written: No space left" in caplog.text


def test_lines_of_several_managers_stay_whole(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mep.audit import AuditTrail\n"
        "trail = AuditTrail(Path(sys.argv[1]))\n"
        "for number in range(200): trail.record(sys.argv[2], str(number), text='x' * 5000)"
    )
    path = tmp_path / "audit.log"
    writers = [subprocess.Popen([sys.executable, "-c", script, path, name]) for name in ("a", "b", "c")]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(events(path)) == ["a"] * 200 + ["b"] * 200 + ["c"] * 200


@pytest.mark.parametrize("place", ["folder", "nosuch/audit.log", "file/audit.log"])
def test_a_place_where_no_file_can_be_is_an_error_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=place):
        AuditTrail(tmp_path / place)


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    def wake(number: int, frame: FrameType | None) -> None:
        raise AssertionError("hangs")

    os.mkfifo(tmp_path / "audit.log")
    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(1)
    try:
        with pytest.raises(OSError, match=r"audit\.log"):
            AuditTrail(tmp_path / "audit.log")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
