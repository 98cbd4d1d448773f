"""Accounts of the lab leave nothing behind, and touch nothing that is not theirs."""

from __future__ import annotations

import pwd
import signal
import subprocess

import pytest

from lab.accounts import LocalAccount

NAME = "mepcheck_lab"


def test_all_that_an_account_runs_ends_with_it(root: None) -> None:
    with LocalAccount(NAME) as account:
        theirs = [subprocess.Popen(["sleep", "1000"], user=account.uid) for _ in range(3)]
        with subprocess.Popen(["sleep", "1000"]) as ours:
            assert sorted(account.processes()) == sorted(process.pid for process in theirs)
            account.end_processes()
            assert account.processes() == []
            assert [process.wait() for process in theirs] == [-signal.SIGKILL] * 3
            assert ours.poll() is None
            ours.kill()
    with pytest.raises(KeyError):
        pwd.getpwnam(NAME)
