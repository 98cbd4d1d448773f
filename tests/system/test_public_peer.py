"""The public package, unmodified, on either side: its manager against our hub, its user endpoint under our manager."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import peer
from lab.accounts import LocalAccount
from lab.client import ClientFailed, run_script
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from lab.peer import PublicManager
from tests.accounts import ALICE
from tests.conftest import need
from tests.system.clients import CALL
from tests.system.sites import MAPPING, TEMPLATE, site_of

pytestmark = pytest.mark.system

ENGINES = ["ThreadPoolEngine", "ProcessPoolEngine"]
ATTEMPTS = 4
ATTEMPT_TIMEOUT = 45.0


@pytest.fixture(scope="module", autouse=True)
def public_package() -> None:
    need(peer.program().exists(), "needs the public package: lab/setup peer")


@pytest.fixture(scope="module")
def public_manager(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Any:
    with PublicManager(folder / "peer", hub, "admin", mapping=MAPPING, template=TEMPLATE) as manager:
        yield manager


def ask_public_user_endpoint(hub: HubProcess, endpoint_id: str, engine: str) -> Any:
    """What CALL says there. The public process pool forks out of a process with threads, and once in a while a worker
    hangs in a lock that it has inherited; a user would start anew with other options, and so does this."""
    for attempt in range(ATTEMPTS):
        options = json.dumps({"ENGINE": engine, "ATTEMPT": attempt})
        try:
            (said,) = run_script(hub, "alice", CALL, endpoint_id, options, timeout=ATTEMPT_TIMEOUT)
        except ClientFailed:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return said
    raise AssertionError("not reached")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_public_manager_and_user_endpoint_serve_our_hub(
    hub: HubProcess, public_manager: PublicManager, accounts: dict[str, LocalAccount], engine: str
) -> None:
    said = ask_public_user_endpoint(hub, public_manager.endpoint_id, engine)
    assert said["uid"] == accounts[ALICE].uid


def test_the_public_managers_refusal_reaches_the_future(hub: HubProcess, public_manager: PublicManager) -> None:
    (said,) = run_script(hub, "mallory", CALL, public_manager.endpoint_id, "{}")
    assert "failed to map" in said["error"]


@pytest.fixture(scope="module")
def mixed(folder: Path, hub: HubProcess, accounts: dict[str, LocalAccount]) -> Any:
    """Our manager with the public user endpoint."""
    config = {"public": True, "uep_command": [str(peer.program()), "_start-user-endpoint"]}
    with site_of(folder, hub, "mixed", schema={}, config=config) as manager:
        # The public user endpoint starts its workers by a name that it looks up in PATH.
        yield manager


@pytest.mark.parametrize("engine", ENGINES)
def test_our_manager_starts_the_public_user_endpoint(
    hub: HubProcess, mixed: ManagerProcess, accounts: dict[str, LocalAccount], engine: str
) -> None:
    said = ask_public_user_endpoint(hub, mixed.endpoint_id, engine)
    assert said["uid"] == accounts[ALICE].uid
    log = next((accounts[ALICE].home / ".globus_compute").glob(f"uep.{mixed.endpoint_id}.*/endpoint.log"))
    assert "Compute" in log.read_text() or "EndpointInterchange" in log.read_text()


def test_a_public_profile_starts_unchanged(folder: Path, hub: HubProcess, public_manager: PublicManager) -> None:
    """The folder that the public `configure` made, with its own id, under our manager."""
    import shutil

    manager = ManagerProcess(folder / "adopted", hub, "admin", mapping=[], name="public")
    (folder / "adopted" / "etc").mkdir(parents=True)
    shutil.copytree(public_manager.profile, manager.profile)
    (manager.profile / "endpoint.json").unlink()
    done = manager.run("list")
    assert "public" in done.stdout
    from mep.reader import loader

    site = loader.load(manager.profile)
    assert site.config.email == "a@example.org"
    assert site.config.local_compute_services


def test_a_profile_made_by_the_public_package_starts_unchanged(folder: Path, hub: HubProcess, root: None) -> None:
    credentials = hub.client_environment("admin")  # as the public package takes them
    ours = ManagerProcess(folder / "theirs", hub, "admin", mapping=[], name="theirs", also=credentials)
    profile = peer.configure(ours.profile.parent, ours.name, {**ours.environment, "HOME": str(folder)})
    before = {path.name: path.read_bytes() for path in profile.iterdir()}
    checked = ours.run("check", ours.name)
    assert "FAIL" not in checked.stdout, checked.stdout
    ours.start()
    ours.stop()
    assert {name: (profile / name).read_bytes() for name in before} == before
