"""The kernel's limits of a slice, read from files as cgroups of version 1 and 2 have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mep.monitor.containment import cgroups
from mep.profile.sections.resources import Resources

LIMITS = Resources(memory_max=8 * 2**30, tasks_max=512, cpu_quota=1.5)


SLICE = "mep-prod-1001.slice"


SCOPE = f"/mep.slice/mep-prod.slice/{SLICE}/mep-prod-uep-7.scope"


BELOW = f"mep.slice/mep-prod.slice/{SLICE}"


def test_the_kernels_limits_in_version_2(tmp_path: Path) -> None:
    folder = tmp_path / BELOW
    folder.mkdir(parents=True)
    for file, text in (("memory.max", f"{8 * 2**30}\n"), ("pids.max", "512\n"), ("cpu.max", "150000 100000\n")):
        (folder / file).write_text(text)
    mounts = cgroups.parse_mounts(
        "30 23 0:26 / /sys rw shared:2 - sysfs sysfs rw\n"
        f"31 30 0:27 / {tmp_path} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n".encode()
    )
    member_of = cgroups.parse_cgroups(f"0::{SCOPE}\n".encode())
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
        f"44 40 0:34 / {tmp_path}/cpu rw shared:12 - cgroup cgroup rw,cpu,cpuacct\n".encode()
    )
    # systemd gives a scope no group of its own for a controller that only its slice needs.
    cpu = SCOPE.rpartition("/")[0]
    text = f"9:name=systemd:{SCOPE}\n8:pids:{SCOPE}\n4:memory:{SCOPE}\n1:cpu,cpuacct:{cpu}\n0::{SCOPE}\n"
    assert cgroups.read_limits(SLICE, cgroups.parse_cgroups(text.encode()), mounts) == LIMITS
    unlimited = tmp_path / "memory" / BELOW / "memory.limit_in_bytes"
    unlimited.write_text("9223372036854771712\n")
    (tmp_path / "cpu" / BELOW / "cpu.cfs_quota_us").write_text("-1\n")
    found = cgroups.read_limits(SLICE, cgroups.parse_cgroups(text.encode()), mounts)
    assert found == Resources(tasks_max=512)
    elsewhere = cgroups.parse_cgroups(text.replace(SLICE, "mep-prod-1002.slice").encode())
    assert cgroups.read_limits(SLICE, elsewhere, mounts) == Resources(), "limits of somebody else"


def test_a_mount_of_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    """As containers have it: what is mounted is not the root, and paths start from the root."""
    folder = tmp_path / BELOW
    folder.mkdir(parents=True)
    (folder / "pids.max").write_text("9\n")
    mounts = cgroups.parse_mounts(f"31 30 0:27 /box/one {tmp_path} rw - cgroup2 cgroup2 rw\n".encode())
    member_of = cgroups.parse_cgroups(f"0::/box/one{SCOPE}\n".encode())
    assert cgroups.read_limits(SLICE, member_of, mounts) == Resources(tasks_max=9)


@pytest.mark.parametrize(
    "name", ["\f", "\v", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", "\r", "\udcff", "x - y", "-", " ", ""], ids=ascii
)
def test_names_that_users_have_given_to_their_mounts(name: str) -> None:
    """Which a user may do with FUSE; the kernel escapes blank, tab, newline and backslash only."""
    own = os.fsencode(
        f"313 292 0:62 / /home/eve/{name} rw,nosuid,nodev,relatime - fuse.{name} {name} rw,user_id=1016\n"
    )
    ours = b"31 30 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
    for content in (own + ours, ours + own, own.rstrip(b"\n") + b"\n\n" + ours):
        assert cgroups.parse_mounts(content) == {"": ("/", Path("/sys/fs/cgroup"))}


def test_names_that_users_have_given_to_their_cgroups() -> None:
    """As in a part of the hierarchy that systemd has delegated to them."""
    path = "/user.slice/\f0::/mep.slice\x85\u2028:x"
    assert cgroups.parse_cgroups(f"0::{path}\n\x1c\n".encode()) == {"": path}
