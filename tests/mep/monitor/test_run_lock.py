from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.waiting import until
from mep.monitor import run_lock

CONTENDER = """
import os, sys, time
from pathlib import Path
from mep.monitor import run_lock
folder, end, holds, overlaps = Path(sys.argv[1]), time.monotonic() + 1.5, 0, 0
while time.monotonic() < end:
    try:
        with run_lock.hold(folder):
            holds += 1
            try:
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                overlaps += 1
            else:
                time.sleep(0.001)
                (folder / "inside").unlink()
    except run_lock.AlreadyRunning:
        pass
print(holds, overlaps)
"""
MANAGER = """
import sys, time
from pathlib import Path
from mep.monitor import run_lock
with run_lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_manager_at_a_time(tmp_path: Path) -> None:
    assert run_lock.holder(tmp_path) is None
    assert run_lock.stop(tmp_path) is False
    with run_lock.hold(tmp_path):
        assert run_lock.holder(tmp_path) == os.getpid()
        with pytest.raises(run_lock.AlreadyRunning) as caught, run_lock.hold(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert run_lock.holder(tmp_path) is None


def test_a_stale_lock_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "manager.pid").write_text("1\n")
    assert run_lock.holder(tmp_path) is None
    with run_lock.hold(tmp_path):
        assert run_lock.holder(tmp_path) == os.getpid()


def test_managers_that_start_and_stop_never_hold_it_together(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    contenders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    while any(contender.poll() is None for contender in contenders):
        holder = run_lock.holder(tmp_path)
        assert holder is None or holder == 0 or holder in [contender.pid for contender in contenders]
    counts = [tuple(map(int, contender.communicate()[0].split())) for contender in contenders]
    assert sum(holds for holds, _ in counts) > 3
    assert [overlaps for _, overlaps in counts] == [0, 0, 0]


def test_the_lock_of_a_file_that_was_removed_is_none(tmp_path: Path) -> None:
    """As it is at the end of a manager that removes it, with a second one that has opened it before."""
    with run_lock.hold(tmp_path):
        (tmp_path / "manager.pid").unlink()
        with run_lock.hold(tmp_path):
            assert (tmp_path / "manager.pid").stat().st_ino == os.fstat(run_lock.descriptors()[-1]).st_ino


@pytest.mark.parametrize("text", ["", "1\n", "999999999\n1\n", "garbage"])
def test_a_holder_is_one_before_it_has_said_its_pid(tmp_path: Path, text: str) -> None:
    """And what an earlier holder has said is not taken for its word."""
    with run_lock.hold(tmp_path):
        os.truncate(tmp_path / "manager.pid", 0)
        (tmp_path / "manager.pid").write_text(text or "")
        expected = 1 if text == "1\n" else 0  # as versions before 0.2 write it
        assert run_lock.holder(tmp_path) == expected
    assert run_lock.holder(tmp_path) is None


def test_a_stop_of_what_a_stale_pid_names_signals_nobody_else(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MANAGER, str(tmp_path)], stdout=subprocess.PIPE) as manager:
        assert manager.stdout is not None
        assert manager.stdout.readline() == b"held\n"
        assert run_lock.stop(tmp_path) is True
    until(lambda: run_lock.holder(tmp_path) is None, "the end of the manager")
