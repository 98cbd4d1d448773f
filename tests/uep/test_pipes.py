"""What the endpoint writes to the manager: audit records and words."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from uep.audit import Audit
from uep.report_pipe import ReportPipe


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@pytest.fixture
def broken() -> Iterator[int]:
    """A pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_a_record_is_one_line_whatever_it_holds(pipe: tuple[int, int]) -> None:
    Audit(pipe[1], pytest.fail).record("FAILED", "T", "F\r\nforged", "not\nallowed\0")
    assert os.read(pipe[0], 1000) == b"fid=F forged tid=T bid= FAILED - not allowed"


def test_a_record_that_cannot_be_written_is_told(broken: int) -> None:
    said: list[str] = []
    Audit(broken, said.append).record("RECEIVED", "T", None)
    assert said == ["audit record cannot be written: Broken pipe"]


def test_words_to_the_manager_are_lines(pipe: tuple[int, int]) -> None:
    report = ReportPipe(pipe[1])
    report.tell("ready")
    report.tell("working")
    assert os.read(pipe[0], 1000) == b"ready\nworking\n"


def test_without_a_manager_the_endpoint_goes_on(broken: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ReportPipe(broken).tell("stopped")
        ReportPipe(None).tell("stopped")
    assert [record.getMessage() for record in caplog.records] == ["the manager cannot be told 'stopped': Broken pipe"]
