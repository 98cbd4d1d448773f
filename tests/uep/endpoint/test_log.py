"""The endpoint's log is bounded, whoever writes to it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lab.waiting import until
from tests.uep import functions
from tests.uep.program import PROCESSES, THREADS, StartUep
from tests.uep.service import Service
from uep.log_file import Bounds

pytestmark = pytest.mark.system

LARGEST = Bounds().size
MUCH = 5 * LARGEST >> 20
"""Megabytes."""


def sizes(log: Path) -> dict[str, int]:
    """Of everything in the log's folder that is called like it."""
    return {path.name: path.stat().st_size for path in log.parent.glob(f"{log.name}*")}


def keepers(directory: Path) -> list[psutil.Process]:
    """Those of the endpoint in this directory."""
    found = psutil.process_iter(["cmdline", "cwd"])
    home = str(directory.parents[1])
    return [each for each in found if each.info["cwd"] == home and "mep-log" in " ".join(each.info["cmdline"] or [])]


@pytest.mark.parametrize(
    ("config", "prints"),
    [
        (THREADS, functions.print_much),
        (THREADS, functions.print_much_and_hold_the_interpreter),
        (THREADS, functions.have_much_printed),
        (PROCESSES, functions.have_much_printed),
    ],
)
def test_a_task_that_prints_much(
    config: str, prints: Callable[[int], object], start_uep: StartUep, service: Service
) -> None:
    uep = start_uep(config)
    service.call(prints, MUCH)
    uep.log_says("the last line of a task")
    assert service.call(functions.double, 1) == 2
    assert uep.stop() == 0
    assert sizes(uep.log).keys() == {"endpoint.log", "endpoint.log.1"}
    assert max(sizes(uep.log).values()) <= LARGEST
    assert uep.log.read_text().endswith("stopped, exit code 0\n"), "all of it, once the endpoint has ended"
    assert {path.stat().st_mode & 0o777 for path in uep.log.parent.glob("endpoint.log*")} <= {0o600, 0o644}
    until(lambda: not keepers(uep.directory), "the end of the log's keeper")


def test_a_log_of_earlier_endpoints_counts(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    log = tmp_path / ".globus_compute" / "uep.test" / "endpoint.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * LARGEST)
    uep = start_uep()
    assert service.call(functions.double, 1) == 2
    assert uep.stop() == 0
    assert sizes(log)["endpoint.log.1"] == LARGEST
    assert "checked in" in log.read_text()


def test_a_log_elsewhere(start_uep: StartUep, service: Service, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "my.log"
    uep = start_uep(f"paths: {{endpoint_log: {elsewhere}}}\n{THREADS}")
    service.call(functions.print_much, MUCH)
    assert uep.stop() == 0
    assert elsewhere.read_text().endswith("stopped, exit code 0\n")
    assert max(sizes(elsewhere).values()) <= LARGEST and sizes(uep.log)["endpoint.log"] < LARGEST


@pytest.mark.parametrize(("keep", "names"), [(0, [""]), (1, ["", ".1"]), (3, ["", ".1", ".2", ".3"])])
def test_size_and_number_are_what_the_template_says(
    keep: int, names: list[str], start_uep: StartUep, service: Service
) -> None:
    uep = start_uep(f"log_size: 128K\nlog_keep: {keep}\n{THREADS}")
    service.call(functions.print_much, 1)
    assert uep.stop() == 0
    assert sorted(sizes(uep.log)) == [f"endpoint.log{name}" for name in names]
    assert max(sizes(uep.log).values()) <= 128 << 10
    in_order = [Path(f"{uep.log}{name}").read_text()[-30:] for name in names]
    assert in_order[0].endswith("stopped, exit code 0\n"), "the newest has the plain name"
    assert not [text for text in in_order[1:] if "stopped" in text]


def test_a_log_that_is_removed_is_made_anew(start_uep: StartUep, service: Service) -> None:
    uep = start_uep()
    assert service.call(functions.double, 1) == 2
    uep.log.unlink()
    service.call(functions.print_much, MUCH)
    assert uep.stop() == 0
    assert max(sizes(uep.log).values()) <= LARGEST


def test_the_keeper_outlives_signals_and_its_endpoint_but_not_what_that_has_started(
    start_uep: StartUep, service: Service, tmp_path: Path
) -> None:
    uep = start_uep()
    go = tmp_path / "go"
    service.call(functions.leave_a_writer, str(go))
    until(lambda: len(keepers(uep.directory)) == 1, "its keeper")
    (keeper,) = keepers(uep.directory)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        keeper.send_signal(number)
    assert uep.stop(signal.SIGKILL) == -signal.SIGKILL
    go.touch()
    uep.log_says("written by what was left", 30)
    until(lambda: not keepers(uep.directory), "the end of the log's keeper")
