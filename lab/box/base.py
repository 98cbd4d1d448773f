"""base.rpm: has no files, and claims to be everything that packages for Enterprise Linux 9 may require."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.box.common import ENVIRONMENT, BoxFailed

PROVIDES = (
    "/bin/bash",
    "/bin/sh",
    "/usr/bin/bash",
    "/usr/bin/python3.11",
    "/usr/bin/sh",
    "/usr/sbin/useradd",
    "bash",
    "coreutils",
    "logrotate",
    "python(abi) = 3.11",
    "python3.11",
    "shadow-utils",
    "systemd",
    "util-linux",
)

_SPEC = """\
Name: mep-box-base
Version: 9
Release: 1
Summary: Claims to be the base system
License: none
BuildArch: noarch
{provides}
%description
Claims to be the base system.
%files
"""


def build(folder: Path) -> None:
    """Makes it in `folder`. Raises BoxFailed."""
    spec = folder / "base.spec"
    spec.write_text(_SPEC.format(provides="\n".join(f"Provides: {name}" for name in PROVIDES)))
    places = {"_topdir": folder / "rpmbuild", "_dbpath": folder / "rpmdb", "_rpmdir": folder}
    places |= {"_rpmfilename": Path("base.rpm")}
    defines = [f"--define={key} {value}" for key, value in places.items()]
    done = subprocess.run(
        ["rpmbuild", *defines, "-bb", str(spec)],
        env=ENVIRONMENT | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BoxFailed(f"rpmbuild: {done.stderr}")
