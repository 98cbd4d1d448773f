"""Accounts of the lab leave nothing behind, and touch nothing that is not theirs."""

from __future__ import annotations

import pwd
import signal
import subprocess

import pytest

from lab.accounts import AccountFailed, LocalAccount

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


def test_an_account_that_was_not_made_here_is_not_touched(root: None) -> None:
    before = pwd.getpwnam("games")
    for _ in range(2):  # nor does it stay locked
        with pytest.raises(AccountFailed, match="was not made here"), LocalAccount("games"):
            pytest.fail("it was taken over")
    assert pwd.getpwnam("games") == before


def test_an_account_is_used_by_one_at_a_time(root: None) -> None:
    with LocalAccount(NAME) as account:
        with pytest.raises(AccountFailed, match="in use by another"), LocalAccount(NAME):
            pytest.fail("it was made twice")
        assert account.processes() == []
        assert pwd.getpwnam(NAME).pw_uid == account.uid
