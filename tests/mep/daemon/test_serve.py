"""The manager's beginning: what was handed to it, and what it has done anew by programs of their own."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mep.daemon import helper_account, serve
from mep.daemon.handed import Folders, Handed, LogTo
from mep.processes.sealed_file import sealed
from mep.profile.client_credentials import ClientCredentials
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from tests.mep.commands import MANAGER, UEP, URL, target
from tests.mep.service import Service

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def handed(profile: Profile, tmp_path: Path) -> Handed:
    """With client credentials that came from the environment."""
    secret = json.dumps(dataclasses.astuple(ClientCredentials(UEP, "the secret"))).encode()
    addresses, credentials = sealed("addresses", b"{}"), sealed("credentials", secret)
    return Handed(
        profile=profile,
        refused="",
        endpoint_id=MANAGER,
        folders=Folders(tmp_path / "run", tmp_path / "kept", tmp_path / "orders", tmp_path / "state"),
        accounts=helper_account.find(ManagerConfig()),
        readers=None,
        log=LogTo(tmp_path / "log", 1 << 20, 1, False, "text", False),
        lock=-1,
        addresses=addresses,
        credentials=credentials,
    )


def test_it_registers_anew_as_often_as_it_must(handed: Handed, service: Service) -> None:
    """Each time with the credentials that the start has found in the environment."""
    service.answer = {
        "endpoint_id": MANAGER,
        "command_queue_info": {"connection_url": URL, "exchange": "commands", "queue": "q"},
        "heartbeat_queue_info": target("heartbeats"),
    }
    anew = serve._Anew(handed)
    for times in range(1, 4):
        found = asyncio.run(anew.addresses())
        assert json.loads(found.read())["commands"]["queue"] == "q"
        assert len(service.requests) == times


SHOW = """
import os, sys
from mep.daemon import serve
serve.run = lambda handed: print(*map(os.get_inheritable, kept))
begins_with, *kept = map(int, sys.argv[1:])
serve.main(["prod", "id", str(begins_with)])
"""


def test_what_came_through_its_exec_goes_no_further(handed: Handed) -> None:
    """Else the writer of the audit trail, programs of PAM modules and all others would have the client's secret."""
    assert handed.credentials is not None
    begins_with, another = sealed("begins with", pickle.dumps(handed)), sealed("of who called `mep start`", b"")
    through = [handed.addresses, handed.credentials, another]
    program = [sys.executable, "-c", SHOW, *map(str, [begins_with, *through])]
    said = subprocess.run(program, pass_fds=[*through, begins_with], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False"] * 3


def test_a_profile_that_another_version_has_read_is_not_put_in_force(
    handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package has been replaced, and this manager not yet restarted."""
    anew = serve._Anew(handed)
    assert asyncio.run(anew.profile(handed.profile.directory)).profile == handed.profile
    monkeypatch.setattr(serve, "__version__", "0.0.1")
    with pytest.raises(OSError, match=r"0\.0\.1 runs: restart this manager"):
        asyncio.run(anew.profile(handed.profile.directory))
