"""Signals through a pidfd, and whether its process has ended."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from mep.processes.pidfd import has_ended, send_signal


def test_a_signal_reaches_the_process_and_its_end_is_seen() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        pidfd = os.pidfd_open(process.pid)
        assert not has_ended(pidfd)
        assert not has_ended(pidfd, within=0.01)
        send_signal(pidfd, signal.SIGTERM)
        assert has_ended(pidfd, within=10)
        send_signal(pidfd, signal.SIGKILL)  # a zombie
        assert process.wait() == -signal.SIGTERM
    send_signal(pidfd, signal.SIGKILL)  # nobody any more
    assert has_ended(pidfd)
    os.close(pidfd)


def test_whom_one_may_not_signal_is_an_error(root: None) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        pidfd = os.pidfd_open(process.pid)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                send_signal(pidfd, signal.SIGTERM)
            except PermissionError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not has_ended(pidfd)
        process.kill()
    os.close(pidfd)


def test_a_closed_descriptor_is_an_error() -> None:
    with pytest.raises(OSError, match="descriptor"):
        send_signal(2**20, signal.SIGTERM)
