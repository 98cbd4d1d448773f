"""The manager's log has one form: text, or JSON, in its file and in the journal."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from mep.daemon import logs
from mep.monitor.audit import AuditTrail

log = logging.getLogger("mep.test")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for ours in set(root.handlers) - set(handlers):
        with contextlib.suppress(OSError):
            ours.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def say() -> None:
    """What a manager says: a decision, a text, an error with its traceback, and a secret."""
    AuditTrail(None).record("refused", "r1", stage="options", reason="no\nsuch thing", account="alice")
    log.warning("cannot connect to %s", "amqp://user:hunter2@h/")
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("unexpected")


def written(form: str, tmp_path: Path) -> tuple[list[str], list[str]]:
    """The lines of the file, and of the journal."""
    journal = StringIO()
    logs.send_to(
        [logs.file(tmp_path / "endpoint.log", 1 << 20, 1), logging.StreamHandler(journal)], debug=False, form=form
    )
    say()
    return (tmp_path / "endpoint.log").read_text().splitlines(), journal.getvalue().splitlines()


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    file, journal = written("json", tmp_path)
    refused, secret, failed = map(json.loads, file)
    assert refused["event"] == "refused" and refused["account"] == "alice" and refused["level"] == "WARNING"
    assert "no\nsuch thing" in refused["message"]
    assert secret["message"] == "cannot connect to amqp://user:***@h/"
    assert failed["message"] == "unexpected" and failed["exception"].endswith("ValueError: odd")
    assert [line[:3] for line in journal] == ["<4>", "<4>", "<3>"]
    assert [json.loads(line[3:])["message"] for line in journal] == [each["message"] for each in map(json.loads, file)]


def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    file, journal = written("text", tmp_path)
    for lines in (file, journal):
        assert not [line for line in lines if "{" in line]
        assert len([line for line in lines if "refused at stage options" in line]) == 1
        assert not [line for line in lines if "hunter2" in line]
    assert {line[:3] for line in journal} == {"<4>", "<3>"}


def test_a_full_disk_is_told_in_the_same_form(tmp_path: Path) -> None:
    journal = StringIO()
    (tmp_path / "endpoint.log").symlink_to("/dev/full")
    logs.send_to(
        [logs.file(tmp_path / "endpoint.log", 1 << 20, 1), logging.StreamHandler(journal)], debug=False, form="json"
    )
    log.info("one")
    log.info("two")
    told = [json.loads(line)["message"] for line in journal.getvalue().splitlines()]
    assert sorted(told) == sorted(["one", "two", next(each for each in told if "No space left" in each)])
