"""`python -m lab.box.nspawn ORDERS`: makes the copy of this system, furnishes it, and boots it with systemd-nspawn.

It runs as root, as process 1 of the box's outer namespaces of mounts and processes. `Box` starts it; ORDERS is JSON.
Each byte on its standard input is an order to boot once more, over the same copy, when what runs has ended.
"""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.box import cgroups

SYSTEMD = "/usr/lib/systemd/systemd"
MEMORY = "2g"
"""What may be written in the box."""
HIDDEN = (
    ".dockerenv",
    "etc/fstab",
    "etc/init.d",
    "etc/mep",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/systemd/system",
    "opt/mep",
    "usr/bin/mep",
    "var/lib/mep",
    "var/lib/rpm",
    "var/log/journal",
    "var/log/mep",
)
"""What this system has and the box does not see."""
_ACCOUNTS = ("etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/subuid", "etc/subgid")
# The kernel counts an account's processes by its number, inside and outside together.
_NUMBERS = "UID_MIN 20000\nGID_MIN 20000\nSYS_UID_MAX 999\nSYS_GID_MAX 999\n"


def _mount_root(folder: Path) -> Path:
    """The throw-away copy of `/`; seen by this process and its children only."""
    _mount("tmpfs", Path("/run"), "mode=755")  # nspawn leaves things there
    memory, root = folder / "memory", folder / "memory" / "root"
    memory.mkdir()
    _mount("tmpfs", memory, f"size={MEMORY},mode=755")
    upper, work = memory / "upper", memory / "work"
    for path in (root, upper, work):
        path.mkdir(mode=0o755)
    for name in HIDDEN:
        path = upper / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.mknod(path, stat.S_IFCHR)  # what an overlay takes for "deleted"
    _mount("overlay", root, f"lowerdir=/,upperdir={upper},workdir={work}")
    return root


def _mount(kind: str, at: Path, options: str) -> None:
    _call("mount", "-t", kind, "-o", options, kind, str(at))


def _furnish(root: Path, name: str) -> None:
    """Makes a freshly installed system of it, with the habits of Enterprise Linux."""
    files = {
        "etc/fstab": "",
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost {name}\n::1 localhost\n",
        "etc/login.defs": f"{Path('/etc/login.defs').read_text()}\n{_NUMBERS}",
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/rpm/macros.box": "%_dbpath /var/lib/rpm\n",  # Debian's is in root's home
        "usr/lib/systemd/system-preset/99-default-disable.preset": "disable *\n",
    }
    for path, content in files.items():
        (root / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        (root / path).write_text(content)
    for path in _ACCOUNTS:  # opened for writing, each becomes the box's own, whatever happens to the one below
        (root / path).open("ab").close()
    units = root / "etc/systemd/system"
    units.mkdir(mode=0o755)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    (units / "console-getty.service").symlink_to("/dev/null")  # nobody is there to log in
    (root / "var/lib/rpm").mkdir(mode=0o755)


def _install_base(root: Path, folder: Path) -> None:
    _call("rpm", f"--root={root}", "--dbpath=/var/lib/rpm", "-i", str(folder / "base.rpm"))


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)}: {done.stderr}")


def _boot(root: Path, orders: Mapping[str, Any]) -> int:
    """Runs the box until it ends. Returns its exit code."""
    # nspawn mounts controllers of version 1 read-only, but these are the box's own.
    start = 'for c in "$@"; do mount -o remount,rw,bind "$c"; done; exec ' + SYSTEMD
    options = ["--quiet", f"--directory={root}", f"--machine={orders['name']}", "--console=read-only"]
    options += ["--private-network"] if orders["own_network"] else []
    # Nobody outside knows of the box: no machined, no scope, no journal.
    options += ["--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
    options += [f"--bind-ro={path}" for path in orders["read_only"]]
    command = ["systemd-nspawn", *options, "/bin/sh", "-c", start, "sh", *orders["controllers"]]
    return subprocess.call(command, stdin=subprocess.DEVNULL)


def _is_to_boot_again() -> bool:
    """Takes one order, if there is any."""
    return bool(select.select([0], [], [], 0)[0] and os.read(0, 1))


def main() -> None:
    """Follows the orders in argv."""
    os.umask(0o022)
    orders = json.loads(sys.argv[1])
    folder = Path(orders["folder"])
    cgroups.enter(orders["cgroups"])
    root = _mount_root(folder)
    _furnish(root, orders["name"])
    _install_base(root, folder)
    code = _boot(root, orders)
    while _is_to_boot_again():
        for cgroup in orders["cgroups"]:
            cgroups.clear(Path(cgroup))  # a host that boots has none
        code = _boot(root, orders)
    sys.exit(code)


if __name__ == "__main__":
    main()
