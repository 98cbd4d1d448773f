"""What is said of a process that has ended: from wait statuses, and from files of control groups as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uep.workers.endings import MemoryKills, described

OWN = "/mep.slice/mep-prod.slice/mep-uep.scope"


def test_of_real_processes() -> None:
    assert described(status_of("raise SystemExit(3)")) == "ended with exit code 3"
    assert described(status_of("import os; os.kill(os.getpid(), 9)")) == "ended by signal 9 (SIGKILL)"
    assert described(signal.SIGSEGV | 0x80) == "ended by signal 11 (SIGSEGV), core dumped"


def status_of(code: str) -> int:
    process = subprocess.Popen([sys.executable, "-c", code])
    status = os.waitpid(process.pid, 0)[1]
    process.returncode = 0
    return status


def version_2(folder: Path) -> Path:
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    own = folder / OWN.lstrip("/")
    own.mkdir(parents=True)
    (own / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n")
    (own / "memory.max").write_text("max\n")
    (own.parent / "memory.max").write_text("1073741824\n")
    return own / "memory.events"


def version_1(folder: Path) -> Path:
    own = folder / "memory" / OWN.lstrip("/")
    own.mkdir(parents=True)
    (own / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (own / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (own.parent / "memory.limit_in_bytes").write_text("1073741824\n")
    return own / "memory.oom_control"


@pytest.mark.parametrize(
    ("make", "group"), [(version_2, f"0::{OWN}\n"), (version_1, f"7:cpu,cpuacct:/\n4:memory:{OWN}\n0::/\n")]
)
def test_memory(make: object, group: str, tmp_path: Path) -> None:
    """The counter is that of the own group; the limit may be one above."""
    assert callable(make)
    mounted, groups = tmp_path / "mounted", tmp_path / "cgroup"
    mounted.mkdir()
    counter = make(mounted)
    groups.write_text(group)
    kills = MemoryKills(groups, mounted)
    assert kills.reason() == ""
    counter.write_text(counter.read_text().replace("oom_kill 2", "oom_kill 3"))
    assert kills.reason() == ", for want of memory; the limit of memory for all that runs there is 1024 MiB"
    assert kills.reason() == ""


def test_without_control_groups(tmp_path: Path) -> None:
    assert MemoryKills(tmp_path / "nothing", tmp_path).reason() == ""
