"""Real processes: which one a `Process` names, and when it names none any more."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.waiting import until
from mep.processes.process import Process

NOBODY = 65534


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def opened(process: Process, *, executed: bool = True) -> bool:
    """Whether `open` gives a descriptor; closes it."""
    pidfd = process.open(executed=executed)
    if pidfd is None:
        return False
    os.close(pidfd)
    return True


def test_a_living_child_is_opened(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid, os.getuid())
    pidfd = process.open()
    assert pidfd is not None
    assert not os.get_inheritable(pidfd)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert select.select([pidfd], [], [], 10)[0], "it is that process: its end is seen"
    os.close(pidfd)
    assert sleeper.wait() == -signal.SIGTERM


def test_the_start_time_tells_processes_apart(sleeper: subprocess.Popen[bytes]) -> None:
    first = Process.of(os.getpid(), os.getuid())
    second = Process.of(sleeper.pid, os.getuid())
    assert first.start_time < second.start_time
    ticks = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    assert 0 <= ticks - second.start_time < 10 * os.sysconf("SC_CLK_TCK"), "ticks since boot"
    assert first == Process.of(os.getpid(), os.getuid())


def test_a_zombie_is_not_opened(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid, os.getuid())
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{sleeper.pid}/stat").exists()
    assert process.open() is None
    assert Process.of(sleeper.pid, os.getuid()) == process, "as long as it has not been reaped it can be identified"


def test_a_dead_one_is_not_opened(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid, os.getuid())
    sleeper.kill()
    sleeper.wait()
    assert process.open() is None
    with pytest.raises(OSError, match=str(sleeper.pid)):
        Process.of(sleeper.pid, os.getuid())


def test_another_start_time_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid, os.getuid())
    before = len(os.listdir("/proc/self/fd"))
    assert not opened(replace(process, start_time=process.start_time + 1))
    assert not opened(replace(process, start_time=process.start_time - 1))
    assert len(os.listdir("/proc/self/fd")) == before, "nothing stays open"


def test_only_before_its_exec_it_may_still_be_root(sleeper: subprocess.Popen[bytes], root: None) -> None:
    assert opened(Process.of(sleeper.pid, NOBODY), executed=False)
    assert not opened(Process.of(sleeper.pid, NOBODY))


def test_another_uid_is_another_process(root: None) -> None:
    with subprocess.Popen(["sleep", "60"], user=NOBODY) as process:
        assert opened(Process.of(process.pid, NOBODY))
        assert not opened(Process.of(process.pid, NOBODY - 1))
        assert not opened(Process.of(process.pid, 0))
        process.kill()


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**31 - 1])
def test_a_number_that_no_process_has_is_not_opened(pid: int) -> None:
    assert Process(pid, 1, os.getuid()).open() is None


@pytest.mark.parametrize("name", ["a b", ") R 1 (", "a) Z 1 2 3", "(((", "))))", "é)\n)", "a\nUid:\t5"])
def test_the_name_of_a_program_does_not_matter(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        comm = Path(f"/proc/{process.pid}/comm")
        until(lambda: comm.read_bytes() == os.fsencode(name) + b"\n", "its exec")
        assert opened(Process.of(process.pid, os.getuid()))
        process.kill()


@pytest.mark.parametrize("name", [b"\x0bUid:", b"\x0bUid:\t5 5 5 5", b"\xc2\x85Uid: 5", b"\x1cUid: x"])
def test_a_process_cannot_hide_behind_its_own_name(name: bytes) -> None:
    renamed = f"import time; open('/proc/self/comm', 'wb').write({name!r}); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", renamed], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert opened(Process.of(process.pid, os.getuid()))
        finally:
            process.kill()
