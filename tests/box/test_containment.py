"""User endpoints in scopes of a real systemd, with limits that the kernel keeps, and an end for all of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from lab.accounts import LocalAccount
from lab.box.machine import PROJECT
from lab.waiting import until
from mep.monitor.containment import containment, limits_met, systemd
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.privileged.kernel import login_uid, set_login_uid
from mep.processes.process import Process, audit_session_of
from mep.profile.sections.resources import Resources
from tests.conftest import need

LIMITS = Resources(memory_max=128 * 2**20, tasks_max=40, cpu_quota=1.5)
V1 = Path("/sys/fs/cgroup")
held = pytest.mark.skipif(not (V1 / "memory").is_dir(), reason="limits hold in a box with cgroups of version 1 only")
SLEEP = "import time; time.sleep(600)"
BOMB = """
import os, sys, time
while True:
    try:
        os.fork()
    except OSError as error:
        open(sys.argv[1], "w").write(error.strerror)
        time.sleep(0.01)
"""
HOG = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
if os.fork() == 0:
    time.sleep(600)
hoard = []
while True:
    hoard.append(b"x" * 2**20)
"""
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""
STUBBORN = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(600)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""
GRACEFUL = """
import os, signal, sys, time
note = sys.argv[1]
def end(*_):
    time.sleep(0.5)
    open(note, "w").write("ended")
    sys.exit()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, end)
    os.setsid()
    with open(note + ".new", "w") as f:
        f.write(str(os.getpid()))
    os.rename(note + ".new", note)
    time.sleep(600)
while not os.path.exists(note):
    time.sleep(0.01)
"""
LEAVER = """
import os, subprocess, sys, time
note, unit = sys.argv[1:]
if os.fork() == 0:
    os.setsid()
    name = "org.freedesktop.systemd1"
    call = ["busctl", "call", name, "/org/freedesktop/systemd1", name + ".Manager", "AttachProcessesToUnit", "ssau"]
    subprocess.run([*call, unit, "/", "1", str(os.getpid())], check=True)
    with open(note + ".new", "w") as f:
        f.write(str(os.getpid()))
    os.rename(note + ".new", note)
    time.sleep(600)
while not os.path.exists(note):
    time.sleep(0.01)
"""
"""Its child has systemd move it, and it ends. Nothing but a login uid is left that says whose it is."""
SERVICE = """\
[Service]
Type=exec
Environment=PYTHONPATH={project}
ExecStart={python} -B {script}
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_KILL CAP_SYS_PTRACE
MemoryMax=1G
TasksMax=20
"""
MANAGER = """
import asyncio, os, pathlib, signal, time
from mep.monitor.containment.containment import Containment
from mep.profile.sections.resources import Resources
note = pathlib.Path("{note}")
if not note.exists():
    if (pid := os.fork()) == 0:
        time.sleep(600)
    unit = asyncio.run(Containment("box").contain(pid, "survivor", {uid}, Resources(tasks_max=60)))
    note.with_suffix(".new").write_text(f"{{pid}} {{unit}}")
    note.with_suffix(".new").rename(note)
signal.pause()
"""
T = TypeVar("T")


class Child:
    """A process that is held before its exec, as a launch does it; then it runs Python as an account."""

    def __init__(self, account: LocalAccount, script: str, *arguments: str) -> None:
        self.account = account
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._gate)
                os.setsid()
                if not os.read(gate, 1):
                    os._exit(0)
                set_login_uid(account.uid)
                os.setgroups([])
                os.setresgid(account.gid, account.gid, account.gid)
                os.setresuid(account.uid, account.uid, account.uid)
                os.chdir(account.home)
                os.execv(sys.executable, [sys.executable, "-c", script, *arguments])
            finally:
                os._exit(99)
        os.close(gate)
        self.process = Process.of(self.pid, account.uid)

    def go(self) -> None:
        os.write(self._gate, b"x")

    def wait(self) -> int:
        """Its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def alive(self) -> bool:
        return psutil.pid_exists(self.pid) and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def alice() -> Iterator[LocalAccount]:
    with LocalAccount("alice") as account:
        yield account


@pytest.fixture(scope="module")
def bob() -> Iterator[LocalAccount]:
    with LocalAccount("bob") as account:
        yield account


@pytest.fixture(autouse=True)
def nothing_left(alice: LocalAccount, bob: LocalAccount) -> Iterator[None]:
    """Every test ends what it has started, and systemd forgets its scopes and slices."""
    yield
    for account in (alice, bob):
        for pid in account.processes():
            os.kill(pid, 9)
    for line in units("mep-*.scope"):  # of a test that failed, with what is still root
        subprocess.run(["systemctl", "kill", "--signal=KILL", line.split()[0]], capture_output=True, check=False)
    until(lambda: not units("mep-*.scope") and not units(f"mep-box-{alice.uid}.slice"), "systemd to forget")


def run(work: Callable[[Containment], Coroutine[Any, Any, T]], profile: str = "box") -> T:
    async def main() -> T:
        one = Containment(profile)
        try:
            return await work(one)
        finally:
            one.close()

    return asyncio.run(main())


def started(
    account: LocalAccount, script: str, *arguments: str, limits: Resources = LIMITS, profile: str = "box"
) -> tuple[Child, str]:
    """A contained child that runs, and its scope."""
    child = Child(account, script, *arguments)
    unit = run(lambda one: one.contain(child.pid, "uep", account.uid, limits), profile)
    assert unit is not None
    child.go()
    return child, unit


def end(child: Child, unit: str) -> None:
    run(lambda one: one.kill(child.process, unit))
    assert child.wait() == -9


def units(pattern: str) -> list[str]:
    return systemctl("list-units", "--all", "--plain", "--no-legend", pattern).splitlines()


def shown(unit: str, name: str) -> str:
    return systemctl("show", "--value", f"--property={name}", unit).strip()


def systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def kernel(controller: str, file: str, account: LocalAccount) -> str:
    """What the kernel says of an account's slice; nothing when it is not limited in this."""
    path = V1 / controller / f"mep.slice/mep-box.slice/mep-box-{account.uid}.slice" / file
    return path.read_text().strip() if path.exists() else ""


@held
def test_a_held_child_gets_a_scope_with_limits_in_force(alice: LocalAccount) -> None:
    child = Child(alice, SLEEP)
    assert containment.available()
    unit = run(lambda one: one.contain(child.pid, "uep.one-two", alice.uid, LIMITS))
    assert unit == f"mep-box-uep.one-two-{child.pid}.scope"
    inside = f"/mep.slice/mep-box.slice/mep-box-{alice.uid}.slice/{unit}"
    assert f":pids:{inside}\n" in Path(f"/proc/{child.pid}/cgroup").read_text(), "before it is let go"
    assert kernel("memory", "memory.limit_in_bytes", alice) == str(LIMITS.memory_max)
    assert kernel("pids", "pids.max", alice) == "40"
    assert kernel("cpu", "cpu.cfs_quota_us", alice) == "150000"
    assert kernel("cpu", "cpu.cfs_period_us", alice) == "100000"
    assert [shown(unit, name) for name in ("KillMode", "SendSIGKILL", "TimeoutStopUSec", "OOMPolicy", "TasksMax")] == [
        "control-group",
        "yes",
        "10s",
        "continue",
        "infinity",
    ]
    assert str(alice.uid) in shown(unit, "Description")
    assert {"shutdown.target"} <= set(shown(unit, "Before").split()), "ended in good order at power-off"
    assert not [name for key in ("Requires", "BindsTo", "PartOf", "After") if "service" in (name := shown(unit, key))]
    child.go()
    until(lambda: psutil.Process(child.pid).uids().real == alice.uid, "its exec")
    end(child, unit)


@held
def test_limits_of_an_existing_slice_are_changed(alice: LocalAccount) -> None:
    first, one = started(alice, SLEEP)
    second, two = started(alice, SLEEP, limits=Resources(memory_max=2**27 + 1, tasks_max=50))
    assert kernel("memory", "memory.limit_in_bytes", alice) == str(2**27)
    assert kernel("pids", "pids.max", alice) == "50"
    assert kernel("cpu", "cpu.cfs_quota_us", alice) in ("", "-1")
    third, three = started(alice, SLEEP, limits=Resources())
    assert kernel("pids", "pids.max", alice) == "max"
    fourth, four = started(alice, SLEEP)
    assert kernel("cpu", "cpu.cfs_quota_us", alice) == "150000", "where there was no limit of this kind before"
    for child, unit in ((first, one), (second, two), (third, three), (fourth, four)):
        end(child, unit)
    # Nothing of it is left that would win over what is asked for now.
    again, unit = started(alice, SLEEP)
    assert kernel("pids", "pids.max", alice) == "40"
    end(again, unit)


@pytest.fixture
def own_systemd(alice: LocalAccount) -> Iterator[str]:
    """The unit of alice's own systemd, which runs."""
    need(login_uid() is not None, "the kernel has no audit")
    unit = f"user@{alice.uid}.service"
    systemctl("start", unit)
    yield unit
    systemctl("stop", unit)


@pytest.mark.parametrize("way", ["killed", "ends"])
def test_what_has_left_its_scope_does_not_outlive_its_user_endpoint(
    alice: LocalAccount, own_systemd: str, way: str
) -> None:
    """S13: a process moves itself into the systemd of its user, by one call to the system's."""
    note = alice.home / f"left-{way}"
    child, unit = started(alice, LEAVER, str(note), own_systemd)
    until(note.exists, "it to leave")
    left = int(note.read_text())
    session = audit_session_of(left)
    assert session is not None
    assert unit not in Path(f"/proc/{left}/cgroup").read_text()
    assert own_systemd in Path(f"/proc/{left}/cgroup").read_text()
    assert child.wait() == 0
    end_it = Containment.kill if way == "killed" else Containment.stop
    run(lambda one: end_it(one, child.process, unit))
    assert psutil.pid_exists(left), "the scope knows nothing of it"
    run(lambda one: end_it(one, child.process, unit, session))
    until(lambda: not psutil.pid_exists(left), "its end")
    assert systemctl("is-active", own_systemd).strip() == "active", "which nobody else is touched for"


def test_what_is_in_its_scope_has_time_to_end(alice: LocalAccount) -> None:
    """Though it has an audit session, and its user endpoint has ended."""
    note = alice.home / "graceful"
    child, unit = started(alice, GRACEFUL, str(note))
    until(note.exists, "its child")
    session = audit_session_of(int(note.read_text()))
    assert child.wait() == 0
    run(lambda one: one.stop(child.process, unit, session))
    assert note.read_text() == "ended"


def test_a_slice_is_gone_with_its_last_scope(alice: LocalAccount) -> None:
    (first, one), (second, two) = (started(alice, SLEEP, limits=Resources()) for _ in range(2))
    end(first, one)
    until(lambda: not units(one), "the scope")
    assert units(f"mep-box-{alice.uid}.slice")
    end(second, two)
    until(lambda: not units(f"mep-box-{alice.uid}.slice"), "the slice")


def test_a_slice_that_is_about_to_go_is_used_again(alice: LocalAccount) -> None:
    """In a profile of its own, whose slice may stay, empty."""
    for _ in range(40):
        end(*started(alice, SLEEP, limits=Resources(), profile="busy"))


def test_many_at_once_share_a_slice(alice: LocalAccount) -> None:
    children = [Child(alice, SLEEP) for _ in range(20)]

    async def all_of_them(one: Containment) -> list[str | None]:
        return await asyncio.gather(*(one.contain(c.pid, "uep", alice.uid, Resources()) for c in children))

    scopes = run(all_of_them)
    assert len(set(scopes)) == 20
    for child, unit in zip(children, scopes, strict=True):
        assert unit is not None
        end(child, unit)


@held
def test_a_limit_that_the_kernel_does_not_take_is_an_error(alice: LocalAccount) -> None:
    child = Child(alice, SLEEP)
    with pytest.raises(ContainmentError, match=r"not in force: 1000000000000 tasks \(the kernel has"):
        run(lambda one: one.contain(child.pid, "uep", alice.uid, Resources(tasks_max=10**12)))
    os.kill(child.pid, 9)
    child.wait()


def test_a_child_that_has_ended_is_an_error(alice: LocalAccount) -> None:
    child = Child(alice, SLEEP)
    os.kill(child.pid, 9)
    child.wait()
    with pytest.raises(ContainmentError):
        run(lambda one: one.contain(child.pid, "uep", alice.uid, Resources()))


@held
def test_a_fork_bomb_is_held_and_ended(alice: LocalAccount, bob: LocalAccount) -> None:
    neighbour, its = started(
        bob, "import os, time\nwhile True: os.waitpid(os.fork() or os._exit(0), 0); time.sleep(0.01)"
    )
    note = alice.home / "refused"
    bomb, unit = started(alice, BOMB, str(note))
    watched = limits_met.watch(bomb.pid, unit)
    until(note.exists, "the limit to be hit")
    assert ["limit is 40 processes and threads" in limit.reason for limit in watched.met()] == [True]
    assert int(kernel("pids", "pids.current", alice)) == 40
    assert len(alice.processes()) <= 40
    assert neighbour.alive()
    end(bomb, unit)
    until(lambda: not alice.processes(), "its end")
    assert neighbour.alive()
    end(neighbour, its)


@held
def test_a_memory_hog_is_killed_and_nobody_else(alice: LocalAccount, bob: LocalAccount) -> None:
    neighbour, its = started(bob, SLEEP)
    sibling, other = started(alice, SLEEP)
    hog, unit = started(alice, HOG, str(alice.home / "go"))
    watched, siblings = limits_met.watch(hog.pid, unit), limits_met.watch(sibling.pid, other)
    (alice.home / "go").touch()
    assert hog.wait() == -9
    (met,) = watched.met()  # its child keeps the scope
    assert "kernel killed a process of it: the limit is 128 MiB for all that you run" in met.reason
    assert siblings.met() == [], "no misfortune of its own"
    assert neighbour.alive() and sibling.alive()
    run(lambda one: one.stop(hog.process, unit))
    until(lambda: not units(unit), "the scope")
    for child, scope in ((neighbour, its), (sibling, other)):
        end(child, scope)


def test_kill_reaches_a_daemon(alice: LocalAccount) -> None:
    note = alice.home / "daemon"
    child, unit = started(alice, DAEMON, str(note), limits=Resources())
    until(lambda: note.exists() and note.read_text(), "the daemon")
    daemon = psutil.Process(int(note.read_text()))
    assert (os.getsid(daemon.pid), daemon.ppid()) != (child.pid, child.pid)
    end(child, unit)
    until(lambda: not alice.processes(), "the daemon's end")
    run(lambda one: one.kill(child.process, unit))  # harmless now
    run(lambda one: one.stop(child.process, unit))


def test_stop_ends_what_is_left(alice: LocalAccount) -> None:
    note = alice.home / "left"
    child, unit = started(alice, STUBBORN, str(note), limits=Resources())
    assert child.wait() == 0
    assert len(alice.processes()) == 1, "its child lives on"
    run(lambda one: one.stop(child.process, unit))
    until(lambda: not alice.processes(), "its end")


@held
def test_probe_says_what_holds_and_what_does_not() -> None:
    said = run(lambda one: one.probe(LIMITS), profile="my-site")
    assert said == (
        "user endpoints run in scopes of systemd "
        f"{systemctl('--version').split()[1]} below mep-my\\x2dsite.slice; "
        "memory 128 MiB, 40 tasks, 1.5 processors per account, as read back"
    )
    assert "no limits are set" in run(lambda one: one.probe(Resources()))
    with pytest.raises(ContainmentError, match="1000000000000 tasks"):
        run(lambda one: one.probe(Resources(tasks_max=10**12)))
    until(lambda: not units("mep-*probe*.slice"), "its slice to go")


def test_a_scope_outlives_its_service_which_needs_no_more_rights(alice: LocalAccount, tmp_path: Path) -> None:
    """Also where, other than in mep@.service, a stop would kill all that is in the service's own cgroup."""
    note, script, unit = tmp_path / "note", tmp_path / "manager.py", Path("/etc/systemd/system/scopetest.service")
    script.write_text(MANAGER.format(note=note, uid=alice.uid))
    unit.write_text(SERVICE.format(project=PROJECT, python=sys.executable, script=script))
    systemctl("daemon-reload")
    systemctl("start", "scopetest")
    until(lambda: note.exists() or shown("scopetest", "ActiveState") != "active", "its child")
    pid, scope = note.read_text().split()
    child, manager = psutil.Process(int(pid)), shown("scopetest", "MainPID")
    systemctl("restart", "scopetest")
    assert shown("scopetest", "MainPID") != manager
    systemctl("daemon-reexec")
    assert child.is_running() and scope in Path(f"/proc/{pid}/cgroup").read_text()
    systemctl("stop", "scopetest")
    assert child.is_running()
    run(lambda one: one.kill(Process.of(int(pid), 0), scope))
    until(lambda: not child.is_running(), "its end")
    unit.unlink()
    systemctl("daemon-reload")


def test_nobody_but_root_can_say_anything_where_systemd_is_asked(alice: LocalAccount) -> None:
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({systemd.SOCKET!r})"
    tried = subprocess.run([sys.executable, "-c", connect], user=alice.uid, capture_output=True, text=True, check=False)
    assert "PermissionError" in tried.stderr


def test_no_bus_is_needed_and_a_systemd_that_is_executed_anew_is_found(alice: LocalAccount) -> None:
    children = [Child(alice, SLEEP) for _ in range(3)]

    async def contain(one: Containment, child: Child) -> str | None:
        return await one.contain(child.pid, "uep", alice.uid, Resources())

    async def through_restarts(one: Containment) -> None:
        scopes = [await contain(one, children[0])]
        systemctl("stop", "dbus.socket", "dbus.service")
        try:
            scopes.append(await contain(one, children[1]))
        finally:
            systemctl("start", "dbus.socket", "dbus.service")
        systemctl("daemon-reexec")
        scopes.append(await contain(one, children[2]))
        for child, scope in zip(children, scopes, strict=True):
            await one.kill(child.process, scope)

    run(through_restarts)
    assert [child.wait() for child in children] == [-9, -9, -9]
