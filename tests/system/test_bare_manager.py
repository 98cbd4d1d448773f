"""What the process that is root has in memory and what it has open, while it serves: held to a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.conftest import need
from tests.system.clients import caller
from tests.system.sites import site_of

pytestmark = pytest.mark.system

ACCOUNT = "mepbare_alice"
SYSTEM = {
    *("ld-linux", "ld-linux-x86", "ld-linux-aarch", "ld", "libc", "libm", "libpthread", "libdl", "libutil", "librt"),
    *("libpython", "libz", "libexpat", "libffi", "libuuid", "libgcc_s"),
}
"""Shared objects of the system: C itself, Python, and what modules of the standard library are made of."""
NAMES = {"libnss_files", "libnss_compat", "libnss_systemd", "libnss_sss", "libcap", "libnsl", "libtirpc"}
"""Modules of the name service: the manager looks up the accounts of its helpers itself, before it serves."""
PAM = {"libpam", "libaudit", "libcap-ng"}
"""libpam and what it needs; PAM's modules are in the children that open sessions."""
NOT_OF_PYTHON = {"_ssl", "_hashlib", "_bz2", "_lzma", "_sqlite3", "_curses", "_tkinter", "_dbm", "_gdbm", "readline"}
"""Modules of the standard library that others' libraries come with."""
OPEN = {
    "epoll": r"anon_inode:\[eventpoll\]",
    "pidfd": r"anon_inode:\[pidfd\]|pidfd:\[\d+\]",
    "pipe": r"pipe:\[\d+\]",
    "memfd": r"/memfd:[\w.-]+ \(deleted\)",
    "socket": r"socket:\[\d+\]",
    "null": r"/dev/null",
    "log": r"{folder}/manager\.log|{folder}/etc/bare/endpoint\.log",
    "lock": r"{folder}/run/bare/manager\.(pid|lock)",
    "pipe of a user endpoint": r"{folder}/run/bare/uep\.[\w.-]+/(pipe|audit)",
}
"""What the manager may have open, by what /proc calls it."""
_ACCEPTS = 0x10000
"""The flag in /proc/net/unix of a socket that listens."""


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "pam"])
def site(request: pytest.FixtureRequest, folder: Path, hub: HubProcess, root: None) -> Iterator[ManagerProcess]:
    config: dict[str, Any] = {"public": True}
    if request.param:
        need(Path("/etc/pam.d").is_dir(), "needs PAM")
        service = Path("/etc/pam.d/mep-bare")
        service.write_text(
            "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
        )
        request.addfinalizer(service.unlink)
        config["pam"] = {"enable": True, "service_name": service.name}
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    path = folder / ("bare_pam" if request.param else "bare_plain")
    with LocalAccount(ACCOUNT), site_of(path, hub, "bare", mapping=mapping, config=config) as running:
        caller(hub, running)("alice")
        yield running


def shared_objects(pid: int) -> set[str]:
    """Of the files that are mapped to be executed, all but Python's own program."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    files = {line.split(maxsplit=5)[5] for line in lines if " r-xp " in line and "/" in line}
    return files - {str(Path(f"/proc/{pid}/exe").readlink())}


def is_pam(site: ManagerProcess) -> bool:
    return "pam:" in (site.profile / "config.yaml").read_text()


def test_it_has_loaded_nothing_but_python_and_the_c_library(site: ManagerProcess) -> None:
    allowed = SYSTEM | NAMES | (PAM if is_pam(site) else set())
    unknown = set()
    for file in map(Path, shared_objects(site.pid)):
        module = file.name.split(".")[0]
        library = re.sub(r"-?[\d.]+$", "", file.name.split(".so")[0])
        of_python = file.parent.name == "lib-dynload" and module not in NOT_OF_PYTHON
        if not of_python and library not in allowed:
            unknown.add(file)
    assert not unknown
    if is_pam(site):
        assert any("libpam" in file for file in shared_objects(site.pid)), "it is there where it is needed"


def test_it_has_open_what_it_needs_and_nothing_else(site: ManagerProcess) -> None:
    kinds: dict[str, list[str]] = {}
    for descriptor in Path(f"/proc/{site.pid}/fd").iterdir():
        target = str(descriptor.readlink())
        forms = {kind: form.format(folder=site.folder) for kind, form in OPEN.items()}
        kind = next((kind for kind, form in forms.items() if re.fullmatch(form, target)), "unknown")
        kinds.setdefault(kind, []).append(target)
    assert "unknown" not in kinds, kinds["unknown"]
    sockets = {target[len("socket:[") : -1] for target in kinds["socket"]}
    unix = {line.split()[6]: line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    assert sockets <= unix.keys(), "sockets of the network"
    listening = [unix[inode][7:] for inode in sockets if int(unix[inode][3], 16) & _ACCEPTS]
    assert listening, "`mep status` asks there"
    names = {Path(path).name for (path,) in listening}  # bound by way of a descriptor: a path may be too long
    assert all((site.folder / "run" / "bare" / name).is_socket() for name in names), names
