"""Accounts of a real directory, slapd and SSSD: the tests of `tests/directory` run in a box that asks these."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lab import directory
from lab.box.machine import PROJECT, Box, obstacle
from tests.conftest import need

pytestmark = pytest.mark.system

TIMEOUT = 480.0
"""Seconds for all tests in the box."""


def test_accounts_of_a_directory(folder: Path) -> None:
    reason = obstacle()
    need(reason is None, reason or "")
    programs = (directory.SLAPD, directory.SSSD)
    need(all(map(os.path.exists, programs)), f"needs the programs {', '.join(programs)} (lab/setup box)")
    environment = {"MEP_BOX": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    environment |= {key: os.environ[key] for key in ("CI",) if key in os.environ}
    # As a service: it needs a cgroup in the box, since the manager has scopes made there.
    service = ["systemd-run", "--wait", "--pipe", "--quiet", "--collect", f"--working-directory={PROJECT}"]
    service += [f"--setenv={name}={value}" for name, value in environment.items()]
    pytest_ = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-x", "--durations=10"]
    with Box(folder / "box") as box:
        done = box.run(*service, *pytest_, "tests/directory", check=False, timeout=TIMEOUT)
        journal = box.shell("journalctl --no-pager --lines=60").stdout if done.returncode else ""
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nThe end of the box's journal:\n{journal}"
    print(done.stdout)
