"""A box: a real systemd, booted over a throw-away copy of this system; gone afterwards with all that happened in it.

    with Box(folder / "box") as box:
        box.run("systemctl", "start", "mep@prod")
        box.shell("journalctl -u mep@prod | tail")

The box sees the file system of `/`, and writes into memory. It does not see other mounts, except the project and the
environment of this Python, which it can only read. Not taken over: what this system has enabled, its journal, its
package database, an installed mep (HIDDEN), `/tmp` and `/run`. Units are disabled by default, as on Enterprise Linux,
whose base system a dummy package claims to provide; so `rpm -i` works inside. The loopback interface is its own, and
there is no other.

A command comes in from outside (nsenter): it has root's full rights, and stays in the cgroup of its caller. What must
have a cgroup in the box, or the rights that a service has there, is started by `systemd-run --wait --pipe`.

Works with cgroups of version 1, 2 and both; the box gets cgroups below those of its maker. Limits (MemoryMax= and the
like) hold with version 1 only. It ends with its maker, even by SIGKILL; its folder and empty cgroups stay then.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from lab.process import PinnedProcess, Running
from lab.waiting import until

BOOT_TIMEOUT = 60.0
"""Seconds until everything is started; it takes one or two."""
STOP_TIMEOUT = 120.0
"""Seconds for a clean power-off; services may have 90 of them to stop."""
PROGRAMS = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "rpmbuild", "dbus-daemon")
SYSTEMD = "/usr/lib/systemd/systemd"
PROJECT = Path(__file__).resolve().parent.parent
MEMORY = "2g"
"""What may be written in the box."""
HIDDEN = (
    ".dockerenv",
    "etc/fstab",
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
"""What packages for Enterprise Linux 9 may require."""

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
_NAME = re.compile(r"mepbox-[a-z0-9]{1,12}")
_POWER_OFF = signal.SIGRTMIN + 4
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


_ACCOUNTS = ("etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/subuid", "etc/subgid")
# The kernel counts an account's processes by its number, inside and outside together.
_NUMBERS = "UID_MIN 20000\nGID_MIN 20000\n"


class BoxFailed(Exception):
    """The box did not boot or stop, or a command in it failed; the text has the end of what was said."""


class Box(Running):
    """`start`, `run`, `shell`, `stop`; a context manager starts and stops.

    `state` is what `systemctl is-system-running` said after the boot: `running`, or `degraded` when a unit failed.
    """

    def __init__(self, folder: Path, name: str | None = None, read_only: Sequence[Path] = ()) -> None:
        """`folder` is made, and removed when the box stops; its parent exists, and it is not in `/run`.

        `name`, `mepbox-` and up to 12 letters and digits, is the box's host name and that of its cgroups; made up when
        there is none. `read_only` are more files and folders of this system that the box sees in the same place.
        """
        self.folder = folder.absolute()
        self.name = name or f"mepbox-{secrets.token_hex(4)}"
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"not a name for a box: {self.name}")
        self.state = ""
        self._read_only = [*_needed(), *(path.absolute() for path in read_only)]
        self._cgroups: dict[str, Path] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: PinnedProcess | None = None

    @property
    def console(self) -> Path:
        """What the box says while it boots and stops."""
        return self.folder / "console.log"

    def start(self) -> None:
        """Boots, and waits until everything is started. Raises BoxFailed, and nothing is left then."""
        try:
            self.folder.mkdir(mode=0o755)
        except FileExistsError:
            raise BoxFailed(f"{self.folder} exists already; nothing was changed") from None
        try:
            _build_base(self.folder)
            self._make_cgroups()
            self._boot()
        except BaseException:
            self._clean_up()
            raise

    def stop(self) -> None:
        """Powers off, and removes everything. Harmless when stopped. Raises BoxFailed when it had to be killed."""
        if self._process is None or self._leader is None:
            return
        try:
            self._leader.send_signal(_POWER_OFF)
            code = self._process.wait(STOP_TIMEOUT)
            if code != 0:
                raise BoxFailed(f"the box ended with exit code {code}:\n{self._console_end()}")
        except subprocess.TimeoutExpired:
            raise BoxFailed(f"the box did not power off:\n{self._console_end()}") from None
        finally:
            self._clean_up()

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as root to its end. Its environment is PATH, HOME, LANG and `env`.

        Raises:
            BoxFailed: it did not end with 0 and `check` is set, or it did not end in time, and was killed.
        """
        assert self._leader is not None, "the box is not running"
        if self._leader.has_ended():
            raise BoxFailed(f"the box has ended:\n{self._console_end()}")
        # The time is up inside first: killing nsenter would end nothing of what it started.
        limit = ["timeout", "--signal=KILL", f"{timeout:g}"]
        enter = ["nsenter", f"--target={self._leader.pid}", "--all", "--", *limit]
        environment = [f"{key}={value}" for key, value in (_ENVIRONMENT | dict(env or {})).items()]
        command = [*enter, "env", "-i", f"--chdir={cwd or '/root'}", *environment, *map(str, argv)]
        shown = " ".join(map(str, argv))
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout + 5
            )
        except subprocess.TimeoutExpired:
            raise BoxFailed(f"{shown}: something that it started holds its output open") from None
        if done.returncode == -signal.SIGKILL and time.monotonic() - began >= timeout:
            raise BoxFailed(f"{shown}: did not end within {timeout:g} s\n{done.stdout}{done.stderr}")
        if check and done.returncode != 0:
            raise BoxFailed(f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, script: str, *, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a script of /bin/sh that ends with the first command that fails. Raises BoxFailed."""
        return self.run("/bin/sh", "-ec", script, check=check, timeout=timeout)

    def _make_cgroups(self) -> None:
        for controllers, own in _own_cgroups().items():
            folder = own / self.name
            _sweep(folder, self.name)  # what a box of that name left whose maker was killed
            folder.mkdir()
            self._cgroups[controllers] = folder

    def _boot(self) -> None:
        names = [name for name in self._cgroups if name and not name.startswith("name=")]
        orders = {
            "folder": str(self.folder),
            "name": self.name,
            "cgroups": [str(path) for path in self._cgroups.values()],
            "controllers": [f"/sys/fs/cgroup/{name}" for name in names],
            "read_only": [str(path) for path in self._read_only],
        }
        apart = ["unshare", "--mount", "--propagation=private", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"]
        with self.console.open("wb") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *apart, sys.executable, "-m", "lab.box", json.dumps(orders)],
                cwd=PROJECT,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._leader = self._wait_for_systemd()
        said = self.run("systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_TIMEOUT)
        self.state = said.stdout.strip()
        if self.state not in ("running", "degraded"):
            raise BoxFailed(f"the box does not run: {self.state}{said.stderr}\n{self._console_end()}")

    def _wait_for_systemd(self) -> PinnedProcess:
        """The box's process 1, as it is seen from outside, once it answers."""
        assert self._process is not None
        process = self._process

        def failed(text: str) -> BoxFailed:
            return BoxFailed(f"{text}:\n{self._console_end()}")

        def answering() -> PinnedProcess | None:
            if process.poll() is not None:
                raise failed("the box has ended")
            for pid in _inits_below(process.pid):
                with contextlib.suppress(OSError):
                    leader = PinnedProcess(pid)
                    if pid in _inits_below(process.pid) and Path(f"/proc/{pid}/root/run/systemd/private").exists():
                        return leader
                    leader.close()
            return None

        leader = until(answering, "the box to boot", BOOT_TIMEOUT, failed=failed)
        assert leader is not None
        return leader

    def _clean_up(self) -> None:
        process, self._process = self._process, None
        leader, self._leader = self._leader, None
        if leader is not None:
            leader.close()
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        # The box's mounts were in its own namespace only, and are gone with it.
        shutil.rmtree(self.folder)
        cgroups, self._cgroups = self._cgroups, {}
        for folder in cgroups.values():
            _sweep(folder, self.name)

    def _console_end(self) -> str:
        lines = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
        return "\n".join([line for line in lines if line][-40:])


def obstacle() -> str | None:
    """Why no box can be booted here; None when nothing is known to be in the way."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [program for program in PROGRAMS if not shutil.which(program, path=_ENVIRONMENT["PATH"])]
    missing += [] if Path(SYSTEMD).exists() else ["systemd"]
    if missing:
        return f"needs the programs {', '.join(missing)} (lab/setup box)"
    cgroups = _own_cgroups()
    if not {"", "name=systemd"} & cgroups.keys() or not all(os.access(path, os.W_OK) for path in cgroups.values()):
        return "needs cgroups that it may change"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        return "needs a kernel that allows new namespaces"
    return None


def _needed() -> list[Path]:
    """What tests in the box need: this project and this Python, wherever they are mounted."""
    return [PROJECT] if sys.prefix == sys.base_prefix else [PROJECT, Path(sys.prefix)]


def _build_base(folder: Path) -> None:
    """Makes base.rpm, which has no files and claims to be everything in PROVIDES."""
    spec = folder / "base.spec"
    spec.write_text(_SPEC.format(provides="\n".join(f"Provides: {name}" for name in PROVIDES)))
    places = {"_topdir": folder / "rpmbuild", "_dbpath": folder / "rpmdb", "_rpmdir": folder}
    places |= {"_rpmfilename": Path("base.rpm")}
    defines = [f"--define={key} {value}" for key, value in places.items()]
    done = subprocess.run(
        ["rpmbuild", *defines, "-bb", str(spec)],
        env=_ENVIRONMENT | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BoxFailed(f"rpmbuild: {done.stderr}")


def _own_cgroups() -> dict[str, Path]:
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


def _inits_below(pid: int) -> list[int]:
    """Those descendants that are systemd and process 1 of a namespace."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(OSError, psutil.Error):
                status = Path(f"/proc/{process.pid}/status").read_text()
                if process.name() == "systemd" and re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                    found.append(process.pid)
    return found


def _sweep(cgroup: Path, name: str) -> None:
    """Removes a box's own cgroup and those below, if any. Waits for the kernel to be done with its last processes."""
    assert cgroup.name == name and _NAME.fullmatch(name), f"not the cgroup of a box: {cgroup}"

    def removed() -> bool:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not cgroup.exists()

    until(removed, f"{cgroup} to be empty", failed=BoxFailed)


# From here on: what runs as process 1 of the box's outer namespaces, and becomes systemd-nspawn.


def _enter_cgroups(cgroups: Sequence[str]) -> None:
    for cgroup in cgroups:
        Path(cgroup, "cgroup.procs").write_text("0")


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


def _become_nspawn(root: Path, name: str, read_only: Sequence[str], controllers: Sequence[str]) -> None:
    # nspawn mounts controllers of version 1 read-only, but these are the box's own.
    start = 'for c in "$@"; do mount -o remount,rw,bind "$c"; done; exec ' + SYSTEMD
    options = ["--quiet", f"--directory={root}", f"--machine={name}", "--private-network", "--console=read-only"]
    # Nobody outside knows of the box: no machined, no scope, no journal.
    options += ["--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
    options += [f"--bind-ro={path}" for path in read_only]
    os.execvp("systemd-nspawn", ["systemd-nspawn", *options, "/bin/sh", "-c", start, "sh", *controllers])


def main() -> None:
    """Follows the orders in argv."""
    os.umask(0o022)
    orders = json.loads(sys.argv[1])
    folder = Path(orders["folder"])
    _enter_cgroups(orders["cgroups"])
    root = _mount_root(folder)
    _furnish(root, orders["name"])
    _install_base(root, folder)
    _become_nspawn(root, orders["name"], orders["read_only"], orders["controllers"])


if __name__ == "__main__":
    main()
