"""The box boots, and its systemd does what the manager's unit relies on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SCRIPT = """\
import os, pathlib, signal, socket, subprocess, sys
folder = pathlib.Path(sys.argv[1])

def end(number, frame):
    with (folder / "signals").open("a") as f:
        print(signal.Signals(number).name, file=f)
    sys.exit(0)

for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, end)
if not (folder / "child").exists():
    (folder / "child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
address = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", "\\0" + address[1:] if address[0] == "@" else address)
while True:
    signal.pause()
"""
UNIT = """\
[Service]
Type=notify
ExecStart={python} {folder}/script.py {folder}
KillMode=process
RestartKillSignal=SIGUSR1
"""
RESTARTS = (
    ["restart", "boottest@one"],
    ["restart", "boottest@*.service"],
    ["try-restart", "boottest@one"],
    ["reload-or-restart", "boottest@one"],
)


class Service:
    """boottest@one, which notes the signals that end it, and has a child from its first start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def main_pid(self) -> int:
        return int(systemctl("show", "--value", "--property=MainPID", "boottest@one"))

    @property
    def child(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "child").read_text()))

    @property
    def signals(self) -> list[str]:
        return (self.folder / "signals").read_text().split()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "script.py").write_text(SCRIPT)
    unit = Path("/etc/systemd/system/boottest@.service")
    unit.write_text(UNIT.format(python=sys.executable, folder=tmp_path))
    systemctl("daemon-reload")
    systemctl("start", "boottest@one")
    running = Service(tmp_path)
    yield running
    systemctl("stop", "boottest@one")
    running.child.kill()
    unit.unlink()
    systemctl("daemon-reload")


def test_everything_is_started() -> None:
    said = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    assert said.stdout.strip() in ("running", "degraded")
    failed = systemctl("list-units", "--failed", "--plain", "--no-legend")
    assert not [name for name in ("dbus", "journald", "logind", "tmpfiles", "sysusers") if name in failed], failed


def test_a_command_runs_as_a_service() -> None:
    run = ["systemd-run", "--wait", "--pipe", "--quiet", "--unit=boottest-run", "cat", "/proc/self/cgroup"]
    assert "/system.slice/boottest-run.service" in subprocess.check_output(run, text=True)


@pytest.mark.parametrize("restart", RESTARTS, ids=" ".join)
def test_a_restart_has_a_signal_of_its_own(service: Service, restart: list[str]) -> None:
    before, child = service.main_pid, service.child
    systemctl(*restart)
    assert service.signals == ["SIGUSR1"]
    assert service.main_pid not in (0, before)
    assert service.child.pid == child.pid and child.is_running(), "KillMode=process spares children"
    systemctl("stop", "boottest@one")
    assert service.signals == ["SIGUSR1", "SIGTERM"]
    assert child.is_running()


def systemctl(*arguments: str) -> str:
    """Its output; a failure shows what it said."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()
