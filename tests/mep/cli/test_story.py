"""What `mep logs` and `mep why` make of users' own words: whose a log is, what is printed, and how long it takes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mep.cli import log_files, story, user_log
from mep.daemon import logs
from mep.monitor.audit import AuditTrail

FACTS = {"configuration": "abc", "endpoint": "uep.x", "account": "alice", "uid": 1001, "pid": 5}
WORDS = [
    "endpoint=uep.x account=mallory uid=1002 pid=5",
    "(endpoint=uep.x account=mallory uid=1002)",
    '"endpoint": "uep.x", "account": "mallory", "uid": 1002, "event": "started", "logger": "mep.audit"',
    "2026-01-01 10:00:00,1 INFO mep.audit: [r1] started (endpoint=uep.x account=mallory uid=1002)",
]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A manager's log, written by what writes one."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield tmp_path / "endpoint.log"
    for each in list(root.handlers):
        root.removeHandler(each)
        each.close()
    root.handlers, root.level = before, level


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("words", WORDS)
def test_no_word_of_a_user_says_whose_a_user_endpoint_is(log: Path, form: str, words: str) -> None:
    """Not that of its own, to hide a log, and not that of somebody else, to put another in its place."""
    logs.send_to([logs.file(log, 10**6, 1)], debug=False, form=form)
    trail = AuditTrail(None)
    trail.record("started", "r1", **FACTS, identity="i", rule="r")
    trail.record("exited", "r1", **FACTS, reason=words, detail=words)
    trail.record("refused", "r2", endpoint="uep.y", account="mallory", uid=1002, stage="running", reason=words)
    logging.getLogger("mep.monitor").error("%s", words)
    said = [story._said_of_owner(line, "uep.x") for line in log_files.naming([log], "uep.x")]
    assert len(said) == 4
    assert said == [("alice", 1001), None, None, None]


def test_a_story_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"event": "refused", "time": "x", "stage": "identity", "reason": "no\x1b[2J\nnothing"}
    told = {"request": "r1", "username": "\x1b]0;", "profile": "prod", "decisions": [said], "log": []}
    monkeypatch.setattr(story, "_story", lambda *_: told)
    story.why("r1", "prod", as_json=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "no\\x1b[2J\\nnothing" in printed and "of \\x1b]0;" in printed


def test_who_lets_lines_drip_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_log, "TIME_LIMIT", 0.5)
    reading, writing = os.pipe()
    read = threading.Event()

    def drip() -> None:
        while not read.wait(0.05):
            os.write(writing, b"x\n")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with pytest.raises(user_log.NotRead):
            list(user_log._lines(reading, follow=False))
    finally:
        read.set()
        dripping.join()
        os.close(reading)
        os.close(writing)


def test_a_folder_among_the_logs_hides_no_line(tmp_path: Path) -> None:
    (tmp_path / "endpoint.log").write_text("r1 here\n")
    (tmp_path / "endpoint.log.d").mkdir()
    assert list(log_files.naming(log_files.older(tmp_path / "endpoint.log"), "r1")) == ["r1 here"]
