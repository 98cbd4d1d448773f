"""What the endpoint writes to the manager: audit records and words."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from uep import figures
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


def test_a_record_is_one_whatever_its_length() -> None:
    """The manager reads a pipe of packets: the rest of a long one would be a record of another task."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    forged = "fid=F tid=T2 bid= EXEC_END"
    audit = Audit(writer, pytest.fail)
    audit.record("RECEIVED", "T", "F" * (4096 - len("fid=")) + forged)
    audit.record("FAILED", "T", "F", "x" * (4096 - len("fid=F tid=T bid= FAILED - ")) + forged)
    assert os.read(reader, 4096) == b"fid=" + b"F" * 64 + b" tid=T bid= RECEIVED"
    assert os.read(reader, 4096).startswith(b"fid=F tid=T bid= FAILED - xx")
    with pytest.raises(BlockingIOError):
        os.read(reader, 4096)
    os.close(reader)
    os.close(writer)


def test_a_record_that_cannot_be_written_is_told(broken: int) -> None:
    said: list[str] = []
    Audit(broken, said.append).record("RECEIVED", "T", None)
    assert said == ["audit record cannot be written: Broken pipe"]


def test_words_to_the_manager_are_lines(pipe: tuple[int, int]) -> None:
    report = ReportPipe(pipe[1])
    report.tell("ready")
    report.tell("working")
    assert os.read(pipe[0], 1000) == b"ready\nworking\n"


def test_figures_are_told_once_the_ones_before_have_been_heard(pipe: tuple[int, int]) -> None:
    """Whatever a manager that is away finds is one line, and there is room for words."""
    report = ReportPipe(pipe[1])
    assert report.figures({"running": 1})
    assert not any(report.figures({"running": 2}) for _ in range(10_000))
    report.tell("stopping")
    assert os.read(pipe[0], 1000) == b'figures {"running": 1}\nstopping\n'
    assert report.figures({"running": 3})
    assert not ReportPipe(pipe[1]).figures({"engine": "x" * 2000}), "too long for the manager"


def test_without_a_manager_there_are_no_figures(broken: int) -> None:
    assert not ReportPipe(None).figures({}) and not ReportPipe(broken).figures({})


@pytest.mark.parametrize(
    ("engine", "received", "forwarded", "expected"),
    [
        ({"engine_type": "ThreadPoolEngine", "pending_tasks": 1, "total_workers": 2}, 5, 2, (1, 2, 2, None)),
        ({"engine_type": "X", "provider_type": "SlurmProvider", "pending_tasks": 9}, 3, 0, (3, 0, 0, 2)),
        ({"engine_type": "X", "pending_tasks": None}, 0, 1, (0, 0, 1, None)),
    ],
)
def test_figures_add_up(
    engine: dict[str, Any], received: int, forwarded: int, expected: tuple[int | None, ...]
) -> None:
    said = figures.figures(engine, ["7", "8"], received, forwarded, None)
    assert (said["waiting"], said["running"], said["done"], said["blocks"]) == expected


def test_the_longest_figures_fit(pipe: tuple[int, int]) -> None:
    engine = dict.fromkeys(("engine_type", "provider_type"), "x" * 1000) | {"total_workers": 2**53}
    said = figures.figures(engine, ["1" * 100] * 1000, 2**53, 0, 1e10)
    assert ReportPipe(pipe[1]).figures(said)


def test_without_a_manager_the_endpoint_goes_on(broken: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ReportPipe(broken).tell("stopped")
        ReportPipe(None).tell("stopped")
    assert [record.getMessage() for record in caplog.records] == ["the manager cannot be told 'stopped': Broken pipe"]
