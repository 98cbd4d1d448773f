"""Tables that fit a terminal, and logs for people."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from lab.waiting import until
from mep.cli import log_files, story, tables, watching
from mep.cli.common import choose_paths, paths
from mep.cli.tables import Column
from mep.daemon.failed import Failed

ROW = {
    "account": "a-name-of-thirty-two-letters-long",
    "username": "somebody.with.a.long.name@university.example.org",
    "state": "draining, asked again",
    "since": 0,
    "waiting": 100000,
    "running": 4096,
    "done": 12345678,
    "idle_since": None,
    "memory_bytes": 123 * 2**30,
    "cpu_seconds": 123456.7,
    "engine": "GlobusComputeEngine",
    "blocks": 10,
    "max_blocks": 1000,
    "batch_jobs": ["1234567", "1234568"] * 10,
    "name": f"uep.{'m' * 36}.{'u' * 36}",
}
HELD = {"kind": "breaker", "uid": 2**31, "until": 10**10, "reason": "r" * 500}


@pytest.mark.parametrize("width", [80, 81, 100, 132, 200, 400])
def test_the_table_of_ps_fits(width: int) -> None:
    made = watching._table([ROW, {}], [HELD, {"kind": "drain", "reason": ""}], 0, {}, width)
    assert max(map(len, made)) <= width
    assert all(title in made[0] for title in ("USER", "STATE", "WAIT", "RUN", "DONE", "USER EN"))
    assert "a-name-of-th" in made[1] and "draining" in made[1]


def test_into_a_pipe_all_is_written() -> None:
    titles, row, _ = watching._table([ROW, {}], [], 0, {}, None)
    assert ROW["username"] in row and row.endswith("u" * 36) and "1234568" in row
    assert len(titles.split()) == 15


@pytest.mark.parametrize("value", [None, True, "x", [], 10**400, -1, 1e308])
def test_what_makes_no_sense_is_shown_all_the_same(value: object) -> None:
    """A worker that was taken over answers what it likes."""
    odd = dict.fromkeys(ROW, value)
    assert watching._table([odd], [dict.fromkeys(HELD, value)], 0, {"x": (0.0, 0.0)}, 80)
    assert watching._counts({"last_minute": value, "refusals": value, "since": value}) == []
    assert watching._one_refusal({"time": value, "stage": value})


def test_columns_are_cut_and_left_out_in_order() -> None:
    columns = (Column("A", least=2), Column("B", least=2, leaves=2), Column("C", leaves=1))
    rows = [("aaaa", "bbbb", "cccc")]
    assert tables.lines(columns, rows, 16)[1] == "aaaa  bbbb  cccc"
    assert tables.lines(columns, rows, 14)[1] == "aaaa  b…  cccc"
    assert tables.lines(columns, rows, 12)[1] == "a…  b…  cccc"
    assert tables.lines(columns, rows, 10)[1] == "aaaa  bbbb"
    assert tables.lines(columns, rows, 8)[1] == "aaaa  b…"
    assert tables.lines(columns, rows, 3)[1] == "aa…"


def test_the_last_errors_in_both_forms_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "endpoint.log"
    said = {"time": "T", "level": "CRITICAL", "message": "worse\x1b[2J"}
    lines = ["2026-01-01 10:00:00,1 ERROR mep.x: bad", "2026-01-01 10:00:01,1 INFO mep.x: ERROR", json.dumps(said)]
    odd = ['{"level": "ERROR"}', '["ERROR"]', '{"ERROR": 1}', '{"level": ["ERROR"]}', '{"ERROR":' + "[" * 10**5]
    log.write_text("\n".join([*odd, *lines, "{ERROR", "ERROR", ""]))
    assert log_files.last_errors(log, 5) == ["2026-01-01 10:00:00,1: bad", "T: worse\\x1b[2J"]
    assert log_files.last_errors(tmp_path / "nosuch", 5) == []


def test_a_log_is_followed_when_it_is_moved(tmp_path: Path) -> None:
    log, seen = tmp_path / "endpoint.log", list[str]()
    log.write_text("before\n")

    def follow() -> None:
        for line in log_files.follow(log):
            seen.append(line)
            if line == "last":
                return

    follower = threading.Thread(target=follow)
    follower.start()

    def says(text: str) -> None:
        with log.open("a") as file:
            file.write(f"{text}\n")

    def first() -> bool:
        says("first")  # again, as long as nobody has opened it
        return "first" in seen

    until(first, "the first line")
    says("second\x1b[2J")
    log.rename(tmp_path / "endpoint.log.old.1")
    log.write_text("")
    until(lambda: "second\\x1b[2J" in seen, "what was written before it was moved")
    says("last")
    follower.join(60)
    assert seen[-1] == "last" and "before" not in seen


@pytest.mark.parametrize(
    ("line", "is_about"),
    [("[ab1] refused", True), ('{"request": "ab1"}', True), ("[ab12] x", False), ("[xab1]", False), ("[ab1.2]", False)],
)
def test_lines_about_a_request(line: str, is_about: bool) -> None:
    assert story._is_about(line, "ab1") is is_about


def test_what_a_status_counts_stands_apart_from_its_time() -> None:
    windows = ("last_minute", "last_hour", "last_day")
    counted = watching._counts({**{window: {"received": 37} for window in windows}, "refusals": {"identity": 1}})
    assert [line.index("37 received") for line in counted[:3]] == [15, 15, 15]
    assert [line[14] for line in counted] == [" "] * 4


def test_a_request_that_no_line_is_about_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choose_paths(tmp_path)
    try:
        (tmp_path / "prod").mkdir()
        (tmp_path / "prod" / "config.yaml").touch()
        log = paths().log_file(tmp_path / "prod")
        log.write_text("2026-11-29 20:20:54,581 INFO mep.audit: [abc] received\n")
        story.logs("prod", "", "abc", follow=False, lines=100, as_json=False)
        assert "[abc] received" in capsys.readouterr().out
        with pytest.raises(Failed, match="no line of the log of prod is about request abd") as caught:
            story.logs("prod", "", "abd", follow=False, lines=100, as_json=False)
        assert caught.value.exit_code == 1
    finally:
        choose_paths(None)
