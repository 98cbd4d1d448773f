"""The manager's log is bounded, with and without logrotate."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.monitor.log_file import LogFile

RULE = Path(__file__).parents[3] / "packaging" / "etc" / "mep.logrotate"
SIZE = 2000
LINE = "x" * 99


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log" / "prod"
    folder.mkdir(parents=True)
    return folder / "endpoint.log"


@pytest.fixture
def handler(log: Path) -> Iterator[LogFile]:
    opened = LogFile(log, SIZE, 2)
    yield opened
    opened.close()


def say(handler: LogFile, *texts: str) -> None:
    for text in texts:
        handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, text, None, None))


def texts(log: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in sorted(log.parent.iterdir())}


def test_it_has_so_many_bytes_and_so_many_before_it(log: Path, handler: LogFile) -> None:
    lines = [f"{number:04d}{LINE}" for number in range(200)]
    say(handler, *lines)
    found = texts(log)
    assert list(found) == ["endpoint.log", "endpoint.log.old.1", "endpoint.log.old.2"]
    assert max(path.stat().st_size for path in log.parent.iterdir()) < SIZE + len(lines[0]) + 1
    together = [*found["endpoint.log.old.2"], *found["endpoint.log.old.1"], *found["endpoint.log"]]
    assert together == lines[-len(together) :], "the last lines, none missing, in their order"
    assert handler.trouble == ""


def test_none_before_it_is_kept(log: Path) -> None:
    handler = LogFile(log, SIZE, 0)
    say(handler, *[LINE] * 200)
    handler.close()
    assert list(texts(log)) == ["endpoint.log"] and log.stat().st_size <= SIZE + len(LINE) + 1


def test_a_link_stays_one(log: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "large.log"
    log.symlink_to(elsewhere)
    handler = LogFile(log, SIZE, 1)
    say(handler, *[LINE] * 50)
    handler.close()
    assert log.is_symlink() and elsewhere.stat().st_size < SIZE + len(LINE) + 1
    assert (tmp_path / "large.log.old.1").exists()


def test_a_folder_that_takes_no_new_file_is_told(log: Path, handler: LogFile) -> None:
    say(handler, *[LINE] * 20)
    shutil.rmtree(log.parent)
    say(handler, "one")
    assert "cannot be written: No such file or directory" in handler.trouble
    log.parent.mkdir()
    say(handler, "two")
    assert handler.trouble == "" and log.read_text() == "two\n"


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_logrotate_and_the_bound_leave_each_other_alone(log: Path, handler: LogFile, tmp_path: Path) -> None:
    """The package's rule, on this folder: what one has kept the other neither moves nor removes. The trail stays."""
    rule = tmp_path / "rule"
    rule.write_text(RULE.read_text().replace("/var/log/mep", str(tmp_path / "log")))
    rule.chmod(0o644)
    trails = [log.parent / "audit.log", log.parents[1] / "audit.log"]
    for trail in trails:
        trail.write_text("{}\n")
    for turn in range(10):
        say(handler, *[f"{turn} {LINE}"] * 50, f"last of turn {turn}")
        rotate = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(rule)]
        subprocess.run(rotate, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    say(handler, "after")
    found = {path.name for path in log.parent.iterdir()}
    theirs = {"endpoint.log.1", *(f"endpoint.log.{number}.gz" for number in range(2, 9))}
    assert found == {"audit.log", "endpoint.log", "endpoint.log.old.1", "endpoint.log.old.2"} | theirs
    assert log.read_text() == "after\n"
    assert (log.parent / "endpoint.log.1").read_text().endswith("last of turn 9\n")
    assert all(trail.read_text() == "{}\n" for trail in trails)
    assert os.stat(log).st_mode & 0o777 == (0o666 & ~_umask())


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
