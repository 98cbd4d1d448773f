"""User endpoints without a manager: real processes, counted and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mep.cli import unmanaged
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.endpoints import record, run_folder
from mep.monitor.endpoints.credentials import CredentialFile
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes.process import Process
from mep.request.account import Account
from mep.request.start_endpoint import StartEndpoint
from tests.mep.credentials import with_sealed

DEAF = "trap '' TERM; echo; exec sleep 60"  # what is ignored stays so through an exec
Orphan = Callable[[str, str], "subprocess.Popen[bytes]"]


@pytest.fixture
def orphan(tmp_path: Path, command: StartEndpoint, alice: Account) -> Iterator[Orphan]:
    """Makes a process with this shell script, on record under this name; it has said a line once it runs."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(name: str, script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        folder = tmp_path / name
        pipe, _ = run_folder.make(folder, audited=False)
        sealed = with_sealed(command)
        credentials = CredentialFile.create(folder / "credentials", sealed.credentials)
        identity = Process.of(process.pid, os.getuid())
        started = time.monotonic()
        record.save(UserEndpoint(sealed, alice, identity, folder, credentials, None, pipe, started, executed=True))
        os.close(pipe)
        return process

    yield make
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_there_are_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nosuch"):
        assert unmanaged.count(folder) == 0
        assert unmanaged.end(folder, folder / "kept") == 0


def test_they_are_counted_and_ended(
    tmp_path: Path, orphan: Orphan, monkeypatch: pytest.MonkeyPatch, no_hang: None
) -> None:
    monkeypatch.setattr(unmanaged, "STOP_TIMEOUT", 3600.0)  # who ends at once is not waited for
    running = [orphan(name, "echo; exec sleep 60") for name in ("a", "b", "c")]
    before = len(os.listdir("/proc/self/fd"))
    assert unmanaged.count(tmp_path) == 3
    (tmp_path / "manager.pid").write_text("1\n")
    assert unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept") == 3
    assert [process.wait() for process in running] == [-signal.SIGTERM] * 3
    assert unmanaged.count(tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["manager.pid"]
    assert len(os.listdir("/proc/self/fd")) == before, "nothing stays open"


def test_one_that_does_not_listen_is_killed(tmp_path: Path, orphan: Orphan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmanaged, "STOP_TIMEOUT", 0.3)
    deaf, orderly = orphan("a", DEAF), orphan("b", "echo; exec sleep 60")
    kept = tmp_path.parent / f"{tmp_path.name}-kept"
    kept.mkdir()
    for name in ("a", "b"):
        (kept / f"{name}.json").write_text("")
    begun = time.monotonic()
    assert unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept") == 2
    assert time.monotonic() - begun >= 0.3, "SIGTERM first, and time to obey"
    assert deaf.wait() == -signal.SIGKILL
    assert orderly.wait() == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert [path.name for path in kept.iterdir()] == ["a.json"], "its tasks are for a next manager to answer"


def test_the_deaf_ones_share_the_time(tmp_path: Path, orphan: Orphan, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []
    has_ended = unmanaged.has_ended

    def noted(pidfd: int, timeout: float) -> bool:
        waited.append(has_ended(pidfd, timeout))
        return waited[-1]

    monkeypatch.setattr(unmanaged, "STOP_TIMEOUT", 0.3)
    monkeypatch.setattr(unmanaged, "has_ended", noted)
    running = [orphan(str(number), DEAF) for number in range(6)]
    assert unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept") == 6
    assert waited.count(False) == 1, "the time is up once for all of them"
    assert {process.wait() for process in running} == {-signal.SIGKILL}


def test_one_that_has_ended_is_not_counted(tmp_path: Path, orphan: Orphan) -> None:
    ended, zombie = orphan("a", "echo; exit 0"), orphan("b", "echo; exec sleep 60")
    ended.wait()
    zombie.kill()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert unmanaged.count(tmp_path) == 0
    assert unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept") == 0
    assert list(tmp_path.iterdir()) == [], "their folders go"


def test_another_process_with_the_same_number_is_left_alone(tmp_path: Path, orphan: Orphan) -> None:
    bystander = orphan("a", "echo; exec sleep 60")
    path = tmp_path / "a" / "state.json"
    started = Process.of(bystander.pid, os.getuid()).start_time
    assert f'"start_time": {started}' in path.read_text()
    path.write_text(path.read_text().replace(f'"start_time": {started}', f'"start_time": {started - 1}'))
    assert unmanaged.count(tmp_path) == 0
    assert unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept") == 0
    assert bystander.poll() is None


def test_what_cannot_be_understood_is_left_alone(tmp_path: Path, orphan: Orphan) -> None:
    process = orphan("a", "echo; exec sleep 60")
    (tmp_path / "a" / "state.json").write_text('{"format": 2}')
    assert unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept") == 0
    assert process.poll() is None
    assert (tmp_path / "a" / "state.json").exists()


def test_only_root_may(tmp_path: Path, orphan: Orphan, root: None) -> None:
    """A user who could read the folder still cannot end what is not theirs."""
    process = orphan("a", "echo; exec sleep 60")
    for path in (tmp_path, *tmp_path.parents[:3], tmp_path / "a"):
        if path != Path("/tmp"):
            path.chmod(0o755)
    (tmp_path / "a" / "state.json").chmod(0o644)
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept")
        except PermissionError:
            os._exit(77)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 77
    assert process.poll() is None


def test_an_error_of_one_spares_no_other(tmp_path: Path, orphan: Orphan, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when systemd does not answer for the first: the others end all the same."""
    kill = unmanaged.Containment.kill

    async def fail_for_the_first(
        self: unmanaged.Containment, process: Process, unit: str | None, audit_session: int | None
    ) -> None:
        await kill(self, process, unit, audit_session)
        if process.pid == running[0].pid:
            raise ContainmentError("systemd does not answer")

    monkeypatch.setattr(unmanaged, "STOP_TIMEOUT", 0.3)
    monkeypatch.setattr(unmanaged.Containment, "kill", fail_for_the_first)
    running = [orphan(name, DEAF) for name in ("a", "b", "c")]
    with pytest.raises(ContainmentError, match="systemd does not answer"):
        unmanaged.end(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept")
    assert [process.wait() for process in running] == [-signal.SIGKILL] * 3
    assert [folder.name for folder in tmp_path.iterdir()] == ["a"], "it may be tried again"
