"""The box as its maker sees it: started, entered by commands, crashed and stopped; what it is says `lab.box`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from lab.box import base, cgroups, nspawn
from lab.box.common import ENVIRONMENT, NAME, BoxFailed
from lab.process import PinnedProcess, Running
from lab.waiting import until

BOOT_TIMEOUT = 60.0
"""Seconds until everything is started; it takes one or two."""
STOP_TIMEOUT = 120.0
"""Seconds for a clean power-off; services may have 90 of them to stop."""
PROGRAMS = ("systemd-nspawn", "unshare", "nsenter", "setpriv", "rpmbuild", "dbus-daemon")
PROJECT = Path(__file__).resolve().parents[2]

_POWER_OFF = signal.SIGRTMIN + 4


class Box(Running):
    """`start`, `run`, `shell`, `crash`, `stop`; a context manager starts and stops.

    `state` is what `systemctl is-system-running` said after the boot: `running`, or `degraded` when a unit failed.
    """

    def __init__(
        self, folder: Path, name: str | None = None, read_only: Sequence[Path] = (), *, own_network: bool = True
    ) -> None:
        """`folder` is made, and removed when the box stops; its parent exists, and it is not in `/run`.

        `name`, `mepbox-` and up to 12 letters and digits, is the box's host name and that of its cgroups; made up when
        there is none. `read_only` are more files and folders of this system that the box sees in the same place.
        Without `own_network` it has the interfaces of its maker, whose servers it reaches.
        """
        self.folder = folder.absolute()
        self.name = name or f"mepbox-{secrets.token_hex(4)}"
        if not NAME.fullmatch(self.name):
            raise ValueError(f"not a name for a box: {self.name}")
        self.state = ""
        self._read_only = [*_needed(), *(path.absolute() for path in read_only)]
        self._own_network = own_network
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
            base.build(self.folder)
            self._make_cgroups()
            self._begin()
            self._wait_until_booted()
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

    def crash(self) -> None:
        """Ends everything at once, as a power cut does, boots once more, and waits until everything is started.

        The files are as they were, those under `/run` and `/tmp` are gone. (What had not reached the disk yet would be
        lost with the power, too; here it is not.) Raises BoxFailed.
        """
        assert self._process is not None and self._process.stdin is not None and self._leader is not None
        self._process.stdin.write(b"!")
        leader, self._leader = self._leader, None
        with leader:
            leader.send_signal(signal.SIGKILL)
            until(leader.has_ended, "the box to end", failed=BoxFailed)
        self._wait_until_booted()

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
        environment = [f"{key}={value}" for key, value in (ENVIRONMENT | dict(env or {})).items()]
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
        for controllers, own in cgroups.own().items():
            self._cgroups[controllers] = cgroups.make(own, self.name)

    def _begin(self) -> None:
        names = [name for name in self._cgroups if name and not name.startswith("name=")]
        orders = {
            "folder": str(self.folder),
            "name": self.name,
            "cgroups": [str(path) for path in self._cgroups.values()],
            "controllers": [f"/sys/fs/cgroup/{name}" for name in names],
            "read_only": [str(path) for path in self._read_only],
            "own_network": self._own_network,
        }
        apart = ["unshare", "--mount", "--propagation=private", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"]
        with self.console.open("wb") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *apart, sys.executable, "-m", "lab.box.nspawn", json.dumps(orders)],
                cwd=PROJECT,
                env=ENVIRONMENT,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_until_booted(self) -> None:
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
        if process is not None and process.stdin is not None:
            process.stdin.close()
        # The box's mounts were in its own namespace only, and are gone with it.
        shutil.rmtree(self.folder)
        made, self._cgroups = self._cgroups, {}
        for folder in made.values():
            cgroups.remove(folder)

    def _console_end(self) -> str:
        lines = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
        return "\n".join([line for line in lines if line][-40:])


def obstacle() -> str | None:
    """Why no box can be booted here; None when nothing is known to be in the way."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [program for program in PROGRAMS if not shutil.which(program, path=ENVIRONMENT["PATH"])]
    missing += [] if Path(nspawn.SYSTEMD).exists() else ["systemd"]
    if missing:
        return f"needs the programs {', '.join(missing)} (lab/setup box)"
    own = cgroups.own()
    if not {"", "name=systemd"} & own.keys() or not all(os.access(path, os.W_OK) for path in own.values()):
        return "needs cgroups that it may change"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        return "needs a kernel that allows new namespaces"
    return None


def _needed() -> list[Path]:
    """What tests in the box need: this project and this Python, wherever they are mounted."""
    return [PROJECT] if sys.prefix == sys.base_prefix else [PROJECT, Path(sys.prefix)]


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
