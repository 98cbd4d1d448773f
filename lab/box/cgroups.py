"""The cgroups of a box: one below each of its maker's, and no trace of them afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from lab.box.common import NAME, BoxFailed
from lab.waiting import until


def own() -> dict[str, Path]:
    """This process's cgroup in each hierarchy, by its controllers as in /proc/self/cgroup; version 2 is "".

    Without cpuset, which systemd uses in version 2 only, and where a new cgroup has no processors.
    """
    mounts: dict[str, tuple[str, str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, rest = line.partition(" - ")
        root, point = place.split()[3:5]
        kind, _, options = rest.split(maxsplit=2)
        for name in {"cgroup": options.split(","), "cgroup2": [""]}.get(kind, []):
            mounts.setdefault(name, (root, point))
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if names[0] in mounts and "cpuset" not in names:
            root, point = mounts[names[0]]
            found[controllers] = Path(point, os.path.relpath(path, root))
    return found


def make(own: Path, name: str) -> Path:
    """A new cgroup of this name below `own`."""
    made = own / name
    remove(made)  # what a box of that name left whose maker was killed
    made.mkdir()
    return made


def remove(cgroup: Path) -> None:
    """Removes a box's own cgroup and those below, if any. Raises BoxFailed."""
    clear(cgroup)
    _until_removed(cgroup)


def clear(cgroup: Path) -> None:
    """Removes those below a box's own cgroup. Raises BoxFailed."""
    assert NAME.fullmatch(cgroup.name), f"not the cgroup of a box: {cgroup}"
    for folder, names, _ in os.walk(cgroup, topdown=False):
        for name in names:
            _until_removed(Path(folder, name))


def _until_removed(cgroup: Path) -> None:
    """Waits for the kernel to be done with its last processes."""

    def removed() -> bool:
        with contextlib.suppress(OSError):
            cgroup.rmdir()
        return not cgroup.exists()

    until(removed, f"{cgroup} to be empty", failed=BoxFailed)


def enter(cgroups: Sequence[str]) -> None:
    """Moves this process into all of them."""
    for cgroup in cgroups:
        Path(cgroup, "cgroup.procs").write_text("0")
