"""What containment needs no systemd for: names, limits as the kernel writes them, the end of a tree of processes."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab.accounts import LocalAccount
from mep.monitor.containment import cgroups, containment, limits, process_tree, unit_names
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.processes.process import Process
from mep.profile.resources import Resources


def kill_tree(process: Process) -> int:
    return asyncio.run(process_tree.kill_tree(process))


LIMITS = Resources(memory_max=8 * 2**30, tasks_max=512, cpu_quota=1.5)
SLICE = "mep-prod-1001.slice"
SCOPE = f"/mep.slice/mep-prod.slice/{SLICE}/mep-prod-uep-7.scope"
BELOW = f"mep.slice/mep-prod.slice/{SLICE}"
TREE = """
import os, sys, time
def sleep():
    os.write(1, b"%d\\n" % os.getpid())  # at once, as others write too
    time.sleep(600)
if os.fork() == 0:                      # in its group
    sleep()
if os.fork() == 0:                      # its parent is gone, its session is not
    if os.fork() == 0:
        sleep()
    os._exit(0)
if os.fork() == 0:                      # in a session of its own, with a child whose parent is gone
    os.setsid()
    if os.fork() == 0:
        if os.fork() == 0:
            sleep()
        os._exit(0)
    sleep()
if len(sys.argv) > 1:
    os.write(1, b"%d\\n" % os.getpid())
    sys.exit()
sleep()
"""
BOMB = """
import os, resource, sys, time
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]), int(sys.argv[1])))
while True:
    try:
        os.fork()
    except OSError:
        os.write(1, b"1\\n")
        time.sleep(0.01)
"""
SLEEP = "import time; print(1, flush=True); time.sleep(600)"
STILL_ROOT = """
import os, sys, time
uid = int(sys.argv[1])
child = os.fork()
if child == 0:
    os.setresuid(uid, uid, uid)
    print(1, flush=True)
time.sleep(600)
"""


@pytest.fixture
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount("meptest_tree") as one:
        yield one


class Tree:
    """Python that runs as an account (or as root) in a session of its own, and the `count` numbers that it prints."""

    def __init__(self, account: LocalAccount, script: str, count: int, *arguments: object, uid: int = -1) -> None:
        uid = account.uid if uid == -1 else uid
        self.root = subprocess.Popen(
            ["/usr/bin/python3", "-c", script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            user=uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
        )
        self.process = Process.of(self.root.pid, account.uid)
        assert self.root.stdout is not None
        self.said = [int(self.root.stdout.readline()) for _ in range(count)]

    def wait(self) -> int:
        assert self.root.stdout is not None
        self.root.stdout.close()
        return self.root.wait()


def wait_for(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("prod", "prod"),
        ("my-site", "my\\x2dsite"),
        ("a_b.c:d", "a_b.c:d"),
        (".a.b", "\\x2ea.b"),
        ("a b@c\\", "a\\x20b\\x40c\\x5c"),
        ("é", "\\xc3\\xa9"),
    ],
)
def test_names_are_escaped_as_systemd_does(text: str, escaped: str) -> None:
    assert unit_names.escape(text) == escaped


def test_the_kernels_limits_in_version_2(tmp_path: Path) -> None:
    folder = tmp_path / BELOW
    folder.mkdir(parents=True)
    for file, text in (("memory.max", f"{8 * 2**30}\n"), ("pids.max", "512\n"), ("cpu.max", "150000 100000\n")):
        (folder / file).write_text(text)
    mounts = cgroups.parse_mounts(
        "30 23 0:26 / /sys rw shared:2 - sysfs sysfs rw\n"
        f"31 30 0:27 / {tmp_path} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    member_of = cgroups.parse_cgroups(f"0::{SCOPE}\n")
    assert cgroups.read_limits(SLICE, member_of, mounts) == LIMITS
    for file, text in (("memory.max", "max\n"), ("pids.max", "max\n"), ("cpu.max", "max 100000\n")):
        (folder / file).write_text(text)
    assert cgroups.read_limits(SLICE, member_of, mounts) == Resources()
    for file in folder.iterdir():
        file.unlink()
    assert cgroups.read_limits(SLICE, member_of, mounts) == Resources(), "without controllers"


def test_the_kernels_limits_in_version_1(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{8 * 2**30}\n",
        "pids/pids.max": "512\n",
        "cpu/cpu.cfs_quota_us": "150000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
    }
    for name, text in files.items():
        path = tmp_path / Path(name).parent / BELOW / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mounts = cgroups.parse_mounts(
        f"41 40 0:31 / {tmp_path}/unified rw shared:9 - cgroup2 cgroup2 rw\n"
        f"42 40 0:32 / {tmp_path}/memory rw shared:10 - cgroup cgroup rw,memory\n"
        f"43 40 0:33 / {tmp_path}/pids rw shared:11 - cgroup cgroup rw,pids\n"
        f"44 40 0:34 / {tmp_path}/cpu rw shared:12 - cgroup cgroup rw,cpu,cpuacct\n"
    )
    # systemd gives a scope no group of its own for a controller that only its slice needs.
    cpu = SCOPE.rpartition("/")[0]
    text = f"9:name=systemd:{SCOPE}\n8:pids:{SCOPE}\n4:memory:{SCOPE}\n1:cpu,cpuacct:{cpu}\n0::{SCOPE}\n"
    assert cgroups.read_limits(SLICE, cgroups.parse_cgroups(text), mounts) == LIMITS
    unlimited = tmp_path / "memory" / BELOW / "memory.limit_in_bytes"
    unlimited.write_text("9223372036854771712\n")
    (tmp_path / "cpu" / BELOW / "cpu.cfs_quota_us").write_text("-1\n")
    found = cgroups.read_limits(SLICE, cgroups.parse_cgroups(text), mounts)
    assert found == Resources(tasks_max=512)
    elsewhere = cgroups.parse_cgroups(text.replace(SLICE, "mep-prod-1002.slice"))
    assert cgroups.read_limits(SLICE, elsewhere, mounts) == Resources(), "limits of somebody else"


def test_a_mount_of_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    """As containers have it: what is mounted is not the root, and paths start from the root."""
    folder = tmp_path / BELOW
    folder.mkdir(parents=True)
    (folder / "pids.max").write_text("9\n")
    mounts = cgroups.parse_mounts(f"31 30 0:27 /box/one {tmp_path} rw - cgroup2 cgroup2 rw\n")
    member_of = cgroups.parse_cgroups(f"0::/box/one{SCOPE}\n")
    assert cgroups.read_limits(SLICE, member_of, mounts) == Resources(tasks_max=9)


def test_differences_are_named() -> None:
    assert limits.differences(LIMITS, LIMITS) == []
    assert limits.differences(Resources(), Resources()) == []
    rounded = Resources(memory_max=10_000_000, cpu_quota=1 / 3)
    assert limits.differences(rounded, Resources(memory_max=9_998_336, cpu_quota=0.33333)) == []
    assert limits.differences(LIMITS, Resources()) == [
        "8589934592 bytes of memory (the kernel has none)",
        "512 tasks (the kernel has none)",
        "1.5 processors (the kernel has none)",
    ]
    assert limits.differences(Resources(), replace(LIMITS, cpu_quota=None, memory_max=None)) == [
        "no limit of tasks (the kernel has 512)"
    ]
    assert len(limits.differences(LIMITS, Resources(8 * 2**30 + 2**20, 513, 1.6))) == 3


def test_limits_of_processes() -> None:
    assert limits.rlimits(LIMITS) == {resource.RLIMIT_NPROC: 512, resource.RLIMIT_DATA: 8 * 2**30}
    assert limits.rlimits(Resources(cpu_quota=1.0)) == {}


def test_without_systemd_it_is_said_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "booted", lambda: False)
    one = Containment("prod")
    assert asyncio.run(one.contain(os.getpid(), "uep", 1001, LIMITS)) is None
    with pytest.raises(ContainmentError, match="cpu_quota is not enforced") as error:
        asyncio.run(one.probe(LIMITS))
    assert "memory_max holds for the data of each process" in str(error.value)
    assert "tasks_max counts all processes of an account" in str(error.value)
    said = asyncio.run(one.probe(Resources()))
    assert "without scopes" in said and "_max" not in said
    one.close()


def test_without_a_bus_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nobody")
    monkeypatch.setattr(containment, "booted", lambda: True)
    with pytest.raises(ContainmentError, match=r"no connection to systemd over D-Bus: .*No such file"):
        asyncio.run(Containment("prod").probe(LIMITS))


def test_sizes_are_readable() -> None:
    assert limits.describe(LIMITS) == "memory 8 GiB, 512 tasks, 1.5 processors"
    assert limits.describe(Resources(memory_max=1536 * 2**20)) == "memory 1.5 GiB"


def test_a_whole_tree_is_killed(account: LocalAccount) -> None:
    """With the session that a descendant made, and an orphan in it."""
    tree = Tree(account, TREE, 5)
    assert set(account.processes()) == set(tree.said)
    assert kill_tree(tree.process) == 5
    assert tree.wait() == -signal.SIGKILL
    wait_for(lambda: not account.processes())
    assert kill_tree(tree.process) == 0


def test_the_rest_of_a_tree_is_killed(account: LocalAccount) -> None:
    """Its root has ended. What is in its session is found; what left the session is nobody's any more."""
    tree = Tree(account, TREE, 5, "the root ends")
    assert tree.wait() == 0
    escaped = {pid for pid in account.processes() if os.getsid(pid) != tree.root.pid}
    assert (len(account.processes()), len(escaped)) == (4, 2)
    asyncio.run(Containment("prod").kill(tree.process, None))
    wait_for(lambda: set(account.processes()) == escaped)


def test_a_fork_bomb_is_held_by_rlimits_and_killed(account: LocalAccount) -> None:
    limit = limits.rlimits(Resources(tasks_max=30))[resource.RLIMIT_NPROC]
    bomb = Tree(account, BOMB, 1, limit)
    wait_for(lambda: len(account.processes()) > 10)  # what an earlier test has ended may still count
    assert len(account.processes()) <= 30
    assert kill_tree(bomb.process) > 10
    assert bomb.wait() == -signal.SIGKILL
    wait_for(lambda: not account.processes())


def test_nobody_else_is_killed(account: LocalAccount) -> None:
    """Not another session of the account, not who has the pid now, not another account's."""
    tree, other = Tree(account, SLEEP, 1), Tree(account, SLEEP, 1)
    for stranger in (replace(tree.process, start_time=tree.process.start_time - 1), replace(tree.process, uid=0)):
        assert kill_tree(stranger) == 0
    assert kill_tree(tree.process) == 1
    assert tree.wait() == -signal.SIGKILL
    assert account.processes() == [other.root.pid]
    assert kill_tree(other.process) == 1
    assert other.wait() == -signal.SIGKILL


def test_a_child_that_is_still_root_is_not_touched(account: LocalAccount) -> None:
    tree = Tree(account, STILL_ROOT, 1, account.uid, uid=0)
    assert kill_tree(tree.process) == 1, "its child, which is not root any more"
    wait_for(lambda: not account.processes())
    assert psutil.Process(tree.root.pid).status() != psutil.STATUS_STOPPED
    assert tree.root.poll() is None
    tree.root.kill()
    tree.wait()
