"""`high_assurance: true`: nothing starts, and nothing goes on, that cannot be audited."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.accounts import LocalAccount
from lab.client import run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.waiting import until
from tests.accounts import ALICE
from tests.system.clients import THREE_TASKS, caller
from tests.system.sites import ASSURED_PROGRAM, site_of

pytestmark = pytest.mark.system

FLOOD = """
import json, sys
from globus_compute_sdk import Executor

def fill():
    import os
    while True:
        os.write(4, b"x" * 2048)

with Executor(endpoint_id=sys.argv[1]) as ex:
    print(json.dumps(str(ex.submit(fill).exception(timeout=60))))
"""


@pytest.fixture(scope="module")
def disk(folder: Path) -> Iterator[Path]:
    """A file system that is full soon."""
    path = folder / "small"
    path.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture(scope="module")
def site(folder: Path, disk: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    config = {"public": True, "high_assurance": True, "audit_log_path": str(disk / "audit.log")}
    config |= {"start_patience": 5, "limits": {"audit_mib_per_hour_per_user": 1}}
    with site_of(
        folder, hub, "assured", config=config, program=(sys.executable, "-I", "-c", ASSURED_PROGRAM)
    ) as manager:
        (manager.folder / "audit.log").symlink_to(disk / "audit.log")  # where `ManagerProcess.audit` looks
        yield manager
        (manager.folder / "audit.log").unlink()


def test_every_task_is_on_record(hub: HubProcess, site: ManagerProcess, accounts: dict[str, LocalAccount]) -> None:
    (tasks,) = run_script(hub, "alice", THREE_TASKS, site.endpoint_id)
    for task in tasks:
        lines = [line for line in site.audit("task") if line.get("task") == task]
        assert [line["action"] for line in lines] == ["RECEIVED", "EXEC_START", "EXEC_END"], lines
        assert {(line["account"], line["uid"]) for line in lines} == {(ALICE, accounts[ALICE].uid)}
    (started,) = site.audit("started")
    (exact,) = {line["configuration"] for line in site.audit() if "configuration" in line}
    assert len(exact) == 12
    decisions = [line["event"] for line in site.audit() if line["request"] == started["request"]]
    assert decisions[:5] == ["received", "mapped", "starting", "started", "checked in"]


def fill(path: Path, what: bytes) -> None:
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(what):
            pass


def whole_lines(disk: Path) -> list[dict[str, Any]]:
    """Without those that a full disk has torn."""
    lines = (disk / "audit.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}") and line.startswith("{")]


def test_nothing_starts_while_the_trail_cannot_be_written(hub: HubProcess, site: ManagerProcess, disk: Path) -> None:
    started, pid = len(site.audit("started")), site.pid
    (alices,) = {line["pid"] for line in site.audit("started")}
    fill(disk / "filler", b"\0" * 4096)
    fill(disk / "audit.log", b"\n")  # there is room in its last page
    try:
        said = caller(hub, site)("bob")
        assert "audit trail" in said["error"]
        assert "small" not in said["error"], "no paths for users"
        caller(hub, site)("alice")  # her user endpoint runs, and says of this task what cannot be recorded
        until(lambda: not Path(f"/proc/{alices}").exists(), "its end")
    finally:
        (disk / "filler").unlink()
    assert "its tasks cannot be audited" in site.log.read_text()
    assert "stage audit" in site.log.read_text()
    assert "No space left on device" in site.log.read_text()
    assert "uid" in caller(hub, site)("bob")
    assert site.pid == pid
    whole = whole_lines(disk)
    assert sum(line["event"] == "started" for line in whole) == started + 1
    assert [line for line in whole if line.get("lost_lines")], "what is missing is told"


def test_a_trail_that_does_not_answer_holds_up_only_starts(hub: HubProcess, site: ManagerProcess) -> None:
    (writer,) = [child for child in psutil.Process(site.pid).children() if child.name() == "mep-audit"]
    writer.suspend()
    try:
        said = caller(hub, site)("alice")
        assert "audit trail" in said["error"]
        assert "uid" in caller(hub, site)("bob"), "his user endpoint runs"
        status = site.run("status", site.name)
        assert status.returncode == 0, status.stderr
        assert "lines have waited for the disk" in status.stdout
    finally:
        writer.resume()
    assert "has not confirmed the line within 5 s" in site.log.read_text()
    assert "uid" in caller(hub, site)("alice")


def test_a_writer_that_is_killed_is_replaced(hub: HubProcess, site: ManagerProcess) -> None:
    (writer,) = [child for child in psutil.Process(site.pid).children() if child.name() == "mep-audit"]
    writer.kill()
    assert "uid" in caller(hub, site)("alice")
    assert "is started anew" in site.log.read_text()


def test_who_fills_the_trail_with_tasks_is_ended_alone(hub: HubProcess, site: ManagerProcess, disk: Path) -> None:
    """Last in this file: alice has no more of it for an hour."""
    before = (disk / "audit.log").stat().st_size
    (error,) = run_script(hub, "alice", FLOOD, site.endpoint_id)
    assert "filled the 1 MiB" in error
    assert 1 << 20 <= (disk / "audit.log").stat().st_size - before < 3 << 19
    assert "may not be started now" in caller(hub, site)("alice")["error"]
    assert "uid" in caller(hub, site)("bob")
    exits = [line for line in whole_lines(disk) if line["event"] == "exited"]
    (exited,) = [line for line in exits if "audit_mib_per_hour_per_user" in line["reason"]]
    assert exited["account"] == ALICE
