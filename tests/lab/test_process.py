"""How the lab ends processes: what it means, and never another that has got the pid meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.process import PinnedProcess, end, kill_if, signal_ours
from lab.waiting import until


class EndFailed(Exception):
    """What `end` raises here."""


@pytest.fixture
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_what_is_meant_is_killed_and_nothing_else(sleeping: subprocess.Popen[bytes]) -> None:
    asked: list[int] = []
    kill_if(sleeping.pid, lambda pid: bool(asked.append(pid)))
    assert asked == [sleeping.pid]
    assert sleeping.poll() is None
    kill_if(sleeping.pid, lambda pid: True)
    assert sleeping.wait() == -signal.SIGKILL


def test_a_pid_that_nobody_has_is_harmless(sleeping: subprocess.Popen[bytes]) -> None:
    sleeping.kill()
    sleeping.wait()
    kill_if(sleeping.pid, lambda _: pytest.fail("there is nobody to look at"))


def test_the_signal_goes_to_who_was_pinned_even_when_the_pid_is_free_again(sleeping: subprocess.Popen[bytes]) -> None:
    """What is looked at ends meanwhile; whoever had its pid by then must not get the signal."""

    def ended_while_looked_at(_: int) -> bool:
        sleeping.kill()
        sleeping.wait()
        return True

    kill_if(sleeping.pid, ended_while_looked_at)


def test_a_pinned_process_is_seen_to_end(sleeping: subprocess.Popen[bytes]) -> None:
    with PinnedProcess(sleeping.pid) as pinned:
        assert not pinned.has_ended()
        pinned.send_signal(signal.SIGTERM)
        until(pinned.has_ended, "its end")
        assert sleeping.wait() == -signal.SIGTERM
        assert pinned.has_ended(), "also when it has been waited for"
        pinned.send_signal(signal.SIGTERM)


def test_of_this_run_is_who_is_younger_and_on_the_same_network(sleeping: subprocess.Popen[bytes]) -> None:
    signal_ours(sleeping.pid, signal.SIGTERM)
    assert sleeping.wait() == -signal.SIGTERM
    for pid in (sleeping.pid, os.getppid()):
        with pytest.raises(ProcessLookupError):
            signal_ours(pid, signal.SIGCONT)


def test_somebody_on_another_network_is_not_signalled(root: None) -> None:
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as stranger:
        until(lambda: Path(f"/proc/{stranger.pid}/comm").read_text() == "sleep\n", "it to be there")
        with pytest.raises(ProcessLookupError):
            signal_ours(stranger.pid, signal.SIGKILL)
        assert stranger.poll() is None
        stranger.kill()


def test_a_child_ends_by_request_or_by_force(
    sleeping: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    end(None, "nothing", EndFailed)
    with pytest.raises(EndFailed, match="sleep ended with exit code -15"):
        end(sleeping, "sleep", EndFailed)
    monkeypatch.setattr("lab.process.STOP_TIMEOUT", 0.1)
    deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(EndFailed, match=r"deaf did not end within 0\.1 s"):
            end(process, "deaf", EndFailed)
        assert process.poll() == -signal.SIGKILL
