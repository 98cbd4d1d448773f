"""A name service helper that was taken over: what it says of groups lets nobody in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.system.clients import caller
from tests.system.sites import site_of

pytestmark = pytest.mark.system

LIAR = """
import runpy, sys, time
from mep.accounts import look_up

found, honest = [], look_up.account

def account(username):
    found.append(honest(username))
    return found[-1]

def group_ids(names):
    until = time.monotonic() + 5  # it is asked for both at the same time; a review of rights asks for groups alone
    while names and not found and time.monotonic() < until:
        time.sleep(0.01)
    return {name: found[-1].gid if found else 0 for name in names}

look_up.account = account
look_up.group_ids = group_ids
runpy.run_module(sys.argv[1], run_name="__main__")
"""
"""Tells the truth about accounts, and that each group of the policy is the one of whoever asks."""
PROGRAM = """
import sys
from mep.cli.main import main
from mep.daemon import main as daemon, serve
from mep.processes import helper

helper._ARGUMENTS = ("-I", {liar!r})
daemon._execute = serve.run  # in this process, whose helpers lie
daemon.main(sys.argv[2:]) if sys.argv[1] == "start" else main()
"""


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Iterator[ManagerProcess]:
    liar = folder / "liar.py"
    liar.write_text(LIAR)
    config = {"public": True, "accounts": {"allow_groups": ["games"]}}
    program = (sys.executable, "-I", "-c", PROGRAM.format(liar=str(liar)))
    with site_of(folder, hub, "lied-to", config=config, program=program) as manager:
        yield manager


def test_who_is_in_no_group_that_is_allowed_is_refused_all_the_same(hub: HubProcess, site: ManagerProcess) -> None:
    said = caller(hub, site)("alice")
    assert "Your account may not run tasks on this system" in said.get("error", ""), said
    assert "games" not in said["error"]
    (refused,) = site.audit("refused")
    assert "step 'admission' failed" in refused["reason"], "it was admitted by what the helper said"
    assert "in none of the groups that are allowed" in refused["reason"]
    assert not site.audit("started")
