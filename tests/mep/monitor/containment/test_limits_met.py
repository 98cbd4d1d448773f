"""Which limits a user endpoint has met: from files as the kernel has them, and from the kernel (version 1, root)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.waiting import PATIENCE, until
from mep.monitor.containment import cgroups, limits_met

SLICE = "mep-prod-1001.slice"
SCOPE = "mep-prod-uep-7.scope"
BELOW = f"mep.slice/mep-prod.slice/{SLICE}/{SCOPE}"
GIB = 2**30

Files = dict[str, str]
Recorded = Callable[..., limits_met.Watched]


class Kernel:
    """Files of cgroups below a folder, for this process, as it were in SCOPE."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
        self._folder = folder
        mounts = {"": ("/", folder)}
        if version == 1:
            mounts = {name: ("/", folder / name) for name in ("memory", "pids")}
        member_of = dict.fromkeys([*mounts, "name=systemd"], f"/{BELOW}")
        monkeypatch.setattr(cgroups, "cgroups_of", lambda pid: member_of)
        monkeypatch.setattr(cgroups, "mounts", lambda: mounts)

    def has(self, group: str, files: Files, controller: str = "") -> None:
        """group: a folder's name, from SCOPE upwards."""
        path = BELOW[: BELOW.index(group) + len(group)]
        folder = self._folder / controller / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)

    def removes(self, group: str) -> None:
        folder = self._folder / BELOW[: BELOW.index(group) + len(group)]
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def events(**counts: int) -> str:
    known = dict.fromkeys(("low", "high", "max", "oom", "oom_kill", "oom_group_kill"), 0)
    return "".join(f"{key} {count}\n" for key, count in {**known, **counts}.items())


def reasons(watched: limits_met.Watched) -> list[str]:
    return [limit.reason for limit in watched.met()]


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Version 2; another user endpoint of the same account has met both limits before."""
    kernel = Kernel(tmp_path, monkeypatch, 2)
    for group in (SLICE, "mep-prod.slice", "mep.slice"):
        kernel.has(group, {"memory.events": events(oom=3, oom_kill=3), "memory.max": "max\n", "pids.max": "max\n"})
        kernel.has(group, {"pids.events": "max 5\n"})
    kernel.has(SLICE, {"memory.max": f"{8 * GIB}\n", "pids.max": "512\n"})
    kernel.has(SCOPE, {"memory.events": events(), "memory.max": "max\n", "pids.max": "max\n", "pids.events": "max 0\n"})
    return kernel


def test_what_another_one_has_met_before_is_not_blamed(second: Kernel) -> None:
    watched = limits_met.watch(os.getpid(), SCOPE)
    assert watched.met() == []
    second.has(SLICE, {"memory.events": events(oom=4, oom_kill=4)})
    assert watched.met() == [], "another one's, meanwhile"


@pytest.mark.parametrize("count", ["oom_kill", "oom_group_kill"])
def test_the_accounts_limit_of_memory_in_version_2(second: Kernel, count: str) -> None:
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.has(SCOPE, {"memory.events": events(**{count: 1})})
    for group in (SLICE, "mep-prod.slice", "mep.slice"):
        second.has(group, {"memory.events": events(oom=4, oom_kill=4)})
    (met,) = watched.met()
    assert met.reason == (
        "out of memory: the kernel killed a process of it: the limit is 8 GiB for all that you run through this"
        " endpoint on this system (resources.memory_max); run less at a time"
    )
    assert met.detail == f"limit of {SLICE}: {8 * GIB}"


def test_a_limit_of_the_sites_own(second: Kernel) -> None:
    """A drop-in for the slice of a profile: no key of config.yaml, and no name of a cgroup for the user."""
    second.has("mep-prod.slice", {"memory.max": f"{16 * GIB}\n"})
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.has(SCOPE, {"memory.events": events(oom_kill=1)})
    second.has(SLICE, {"memory.events": events(oom=3, oom_kill=4)})
    for group in ("mep-prod.slice", "mep.slice"):
        second.has(group, {"memory.events": events(oom=4, oom_kill=4)})
    (met,) = watched.met()
    assert "16 GiB" in met.reason and "resources" not in met.reason and "slice" not in met.reason
    assert met.detail == f"limit of mep-prod.slice: {16 * GIB}"


def test_a_host_without_memory_is_no_limit(second: Kernel) -> None:
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.has(SCOPE, {"memory.events": events(oom_kill=1)})
    (met,) = watched.met()
    assert met.reason == "out of memory: the kernel killed a process of it"
    assert "host itself may have run out" in met.detail


def test_a_scope_that_is_gone_already(second: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its account's slice and the host have counted since allows a guess, and it is said that it is one."""
    vmstat = tmp_path / "vmstat"
    monkeypatch.setattr(limits_met, "_VMSTAT", vmstat)
    vmstat.write_text("nr_free_pages 12\noom_kill 7\n")
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.removes(SCOPE)
    assert watched.met() == []
    vmstat.write_text("nr_free_pages 3\noom_kill 8\n")
    (met,) = watched.met()
    assert met.guess and met.reason.startswith("perhaps out of memory") and "limit" not in met.reason
    second.has(SLICE, {"memory.events": events(oom=4, oom_kill=4)})
    (met,) = watched.met()
    assert met.guess and met.reason.startswith("probably out of memory") and "the limit is 8 GiB" in met.reason
    second.removes(SLICE)
    (met,) = watched.met()
    assert met.reason.startswith("perhaps")


@pytest.mark.parametrize("counted_at", [SCOPE, SLICE])
def test_the_accounts_limit_of_tasks(second: Kernel, counted_at: str) -> None:
    """Linux counts where it was tried, and since 6.11 where the limit is."""
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.has(counted_at, {"pids.events": "max 6\n"})
    (reason,) = reasons(watched)
    assert reason == (
        "no more processes or threads could be started: the limit is 512 processes and threads for all that you run"
        " through this endpoint on this system (resources.tasks_max); run less at a time"
    )


def test_limits_of_others_are_counted_above_but_not_met(second: Kernel) -> None:
    """`.local` files, where the kernel has them, count a cgroup's own limit only."""
    above = {"memory.max": f"{16 * GIB}\n", "memory.events.local": events(), "pids.events.local": "max 0\n"}
    second.has("mep-prod.slice", {**above, "pids.max": "4096\n"})
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.has("mep-prod.slice", {"memory.events": events(oom=9, oom_kill=9), "pids.events": "max 9\n"})
    assert watched.met() == []
    second.has(SCOPE, {"memory.events": events(oom_kill=1)})
    (met,) = watched.met()
    assert met.reason == "out of memory: the kernel killed a process of it"


def test_the_limits_in_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(tmp_path, monkeypatch, 1)
    none, control = "9223372036854771712\n", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
    for group, limit, failed in ((SLICE, f"{8 * GIB}\n", "40\n"), (SCOPE, none, "0\n")):
        files = {"memory.limit_in_bytes": limit, "memory.failcnt": failed, "memory.oom_control": control.format(0)}
        kernel.has(group, files, "memory")
        kernel.has(group, {"pids.max": "512\n" if group == SLICE else "max\n", "pids.events": "max 0\n"}, "pids")
    watched = limits_met.watch(os.getpid(), SCOPE)
    kernel.has(SLICE, {"memory.failcnt": "41\n"}, "memory")
    assert watched.met() == [], "memory was made free"
    kernel.has(SCOPE, {"memory.oom_control": control.format(1)}, "memory")
    kernel.has(SCOPE, {"pids.events": "max 2\n"}, "pids")
    memory, tasks = reasons(watched)
    assert "8 GiB" in memory and "(resources.memory_max)" in memory
    assert "512 processes and threads" in tasks and "(resources.tasks_max)" in tasks


@pytest.mark.parametrize("text", ["", "oom_kill", "oom_kill -1\n", "oom_kill x\n", "\xff\xfe\n", "oom_kill 1" * 10000])
def test_files_that_say_nothing(second: Kernel, text: str) -> None:
    watched = limits_met.watch(os.getpid(), SCOPE)
    second.has(SCOPE, {"memory.events": text, "pids.events": text, "memory.max": text})
    watched.met()


def test_who_has_no_scope_of_its_own_is_not_watched() -> None:
    assert limits_met.watch(os.getpid(), None) == limits_met.Watched()
    assert limits_met.watch(os.getpid(), SCOPE) == limits_met.Watched()
    assert limits_met.watch(2**22 + 1, SCOPE) == limits_met.Watched(), "has ended"


# With the kernel

GREEDY = "bytearray(256 << 20)"
PROLIFIC = "[subprocess.Popen(['sleep', '60']) for _ in range(40)]"


@pytest.fixture
def contained(root: None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a scope, made here as systemd makes it; its program is one line on its standard input."""
    mounts = {name: place for name, (_, place) in cgroups.mounts().items()}
    if not {"memory", "pids", "name=systemd"} <= mounts.keys():
        pytest.skip("cgroups of version 1 are not there")
    slice_, scope = f"mep-meptest{os.getpid()}-1.slice", f"mep-meptest{os.getpid()}-uep-1.scope"
    folders = [mounts[name] / slice_ / scope for name in ("memory", "pids", "name=systemd")]
    program = "import resource, subprocess; exec(input())"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True)
    try:
        try:
            for folder in folders:
                folder.mkdir(parents=True)
                (folder / "cgroup.procs").write_text(str(process.pid))
            (folders[0] / "memory.swappiness").write_text("0")
            (folders[0].parent / "memory.limit_in_bytes").write_text(str(64 * 2**20))
            (folders[1].parent / "pids.max").write_text("20")
        except OSError as e:
            pytest.skip(f"cgroups cannot be made here: {e}")
        yield process
    finally:
        process.kill()
        process.communicate()
        for folder in folders:
            for pid in _members(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            until(lambda folder=folder: _removed(folder) and _removed(folder.parent), f"{folder} to be empty")  # type: ignore[misc]


def _members(folder: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
    return []


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (GREEDY, "out of memory: the kernel killed a process of it: the limit is 64 MiB"),
        (PROLIFIC, "no more processes or threads could be started: the limit is 20 "),
    ],
)
def test_a_limit_that_the_kernel_enforces(contained: subprocess.Popen[bytes], program: str, says: str) -> None:
    scope = Path(cgroups.cgroups_of(contained.pid)["name=systemd"]).name
    watched = limits_met.watch(contained.pid, scope)
    assert watched.met() == []
    assert contained.stdin is not None
    contained.stdin.write(f"{program}\n".encode())
    contained.stdin.close()
    contained.stdin = None
    assert contained.wait(PATIENCE) == (-9 if program == GREEDY else 1)
    (reason,) = reasons(watched)
    assert reason.startswith(says)
