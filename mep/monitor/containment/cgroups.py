"""What the kernel says of cgroups: which ones a process is in, and the limits of a slice (cgroups(7))."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mep.monitor.containment.systemd import ContainmentError
from mep.profile.sections.resources import Resources

UNLIMITED = 2**62
"""From here on, a limit of memory of cgroups v1 is none: it has no word for that."""
_OPTIONAL, _MOUNT_FIELDS = 6, 10
"""Of a line of mountinfo: where the optional fields begin, which `-` ends; the fewest fields of a line."""
_FILES = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
_FILES_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"}


def cgroups_of(pid: int) -> dict[str, str]:
    """Controller to path, of a process. Raises ContainmentError when the process cannot be seen."""
    try:
        return parse_cgroups(Path(f"/proc/{pid}/cgroup").read_bytes())
    except OSError:
        raise ContainmentError(f"process {pid} has ended, or /proc does not show it (hidepid?)") from None


def mounts() -> dict[str, tuple[str, Path]]:
    """Controller to (path that is mounted, where), as this process sees them."""
    return parse_mounts(Path("/proc/self/mountinfo").read_bytes())


def parse_cgroups(content: bytes) -> dict[str, str]:
    """Controller to path, from /proc/PID/cgroup (cgroups(7)). That of version 2 is ""."""
    found = {}
    for line in content.split(b"\n"):
        if line.count(b":") >= 2:
            _, controllers, path = line.split(b":", 2)
            found.update(dict.fromkeys(os.fsdecode(controllers).split(","), os.fsdecode(path)))
    return found


def parse_mounts(content: bytes) -> dict[str, tuple[str, Path]]:
    """Controller to (path that is mounted, where), from /proc/PID/mountinfo (proc(5)). That of version 2 is "".

    Users may mount (FUSE), and choose names: of these the kernel escapes blank, tab, newline and backslash only. A line
    that makes no sense is somebody else's.
    """
    found: dict[str, tuple[str, Path]] = {}
    for line in content.split(b"\n"):
        fields = line.split(b" ")
        if len(fields) < _MOUNT_FIELDS or b"-" not in fields[_OPTIONAL:-3]:
            continue
        kind, options = fields[fields.index(b"-", _OPTIONAL) + 1], os.fsdecode(fields[-1])
        for controller in {b"cgroup": options.split(","), b"cgroup2": [""]}.get(kind, []):
            found.setdefault(controller, (os.fsdecode(fields[3]), Path(os.fsdecode(fields[4]))))
    return found


def read_limits(slice_: str, cgroups: Mapping[str, str], mounts: Mapping[str, tuple[str, Path]]) -> Resources:
    """The limits of a slice as the kernel has them, in cgroups of version 1 or 2; None where it has none.

    cgroups, mounts: of a process in the slice or below it, from `parse_cgroups`, `parse_mounts`.
    """
    said = {}
    for controller in _FILES:
        version_1 = controller in cgroups and controller in mounts
        key, name = (controller, _FILES_V1[controller]) if version_1 else ("", _FILES[controller])
        said[controller] = _numbers(folder(slice_, cgroups.get(key, ""), mounts.get(key)), name)
    memory, tasks, cpu = said["memory"], said["pids"], said["cpu"]
    return Resources(
        memory_max=int(memory[0]) if memory and memory[0] < UNLIMITED else None,
        tasks_max=int(tasks[0]) if tasks else None,
        cpu_quota=cpu[0] / cpu[1] if cpu else None,
    )


def folder(unit: str, path: str, mount: tuple[str, Path] | None) -> Path | None:
    """The folder of a slice or scope, from a path at or below it. None when it is not on that path."""
    parts = path.split("/")
    if mount is None or unit not in parts:
        return None
    root, point = mount
    return point / os.path.relpath("/".join(parts[: parts.index(unit) + 1]), root)


def _numbers(folder: Path | None, name: str) -> list[int]:
    """What a file of a cgroup limits to; nothing for no limit. Version 1 has the period of `cpu` in a second file."""
    names = [name, "cpu.cfs_period_us"] if name == "cpu.cfs_quota_us" else [name]
    try:
        words = [word for file in names for word in (folder / file).read_text().split()] if folder else []
    except OSError:
        return []
    return [] if words[:1] in ([], ["max"], ["-1"]) else [int(word) for word in words]
