"""Authentication policies as admins make them: by the public tool's `configure`, for an endpoint of ours."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from globus_compute_sdk.sdk.auth.auth_client import ComputeAuthClient
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app

from lab import peer
from lab.accounts import LocalAccount
from lab.client import ClientFailed
from lab.hub import HubProcess
from tests.conftest import need
from tests.system.clients import caller
from tests.system.sites import site_of

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def public_package() -> None:
    need(peer.program().exists(), "needs the public package: lab/setup peer")


@pytest.fixture
def auth(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[ComputeAuthClient]:
    """Globus Auth's client of the admin."""
    for name, value in hub.client_environment("admin").items():
        monkeypatch.setenv(name, value)
    with get_globus_app() as app:
        yield ComputeAuthClient(app=app)


class Configure:
    """Runs the public tool in a folder of its own."""

    def __init__(self, folder: Path, hub: HubProcess) -> None:
        self._folder = folder
        self._environment = {
            **hub.client_environment("admin"),
            "GLOBUS_COMPUTE_USER_DIR": str(folder),
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
        }

    def __call__(self, name: str, *options: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [peer.program(), "configure", "--contact-email", "a@example.org", *options, name]
        return subprocess.run(
            command, env=self._environment, input=typed, capture_output=True, text=True, check=False, timeout=120
        )

    def policy_of(self, name: str) -> Any:
        """The policy that it has written into the endpoint's config.yaml."""
        return yaml.safe_load((self._folder / name / "config.yaml").read_text())["authentication_policy"]


@pytest.fixture
def configure(tmp_path: Path, hub: HubProcess) -> Configure:
    return Configure(tmp_path, hub)


def test_the_public_tool_makes_a_policy_to_which_the_hub_holds_users(
    configure: Configure, auth: ComputeAuthClient, hub: HubProcess, folder: Path, accounts: dict[str, LocalAccount]
) -> None:
    me = auth.userinfo()["sub"]
    another = "\n" if list(auth.get_projects()) else ""  # it asks which of those that there are
    typed = f"{another}Site\nsite@example.org\n{me}\n\ny\n"
    made = configure("one", "--allowed-domains", "example.org,*.edu", "--auth-timeout", "600", typed=typed)
    assert made.returncode == 0, made.stdout + made.stderr
    policy = configure.policy_of("one")
    shown = auth.get_policy(policy)["policy"]
    assert shown["domain_constraints_include"] == ["example.org", "*.edu"]
    assert shown["authentication_assurance_timeout"] == 600
    assert auth.get_project(shown["project_id"])["project"]["display_name"] == "Site"
    assert shown["project_id"] in [project["id"] for project in auth.get_projects()]

    config = {"public": True, "authentication_policy": policy}
    with site_of(folder, hub, "policy", config=config) as site:
        call = caller(hub, site)
        assert call("alice")["uid"]
        auth.update_policy(policy, domain_constraints_exclude=["example.org"])
        with pytest.raises(ClientFailed, match="None of your identities is of a domain"):
            call("bob")
        with pytest.raises(ClientFailed, match="authentication policy"):
            call("alice")
        auth.update_policy(policy, domain_constraints_include=["other.example"])
        assert call("alice")["uid"], "her linked identity is of that domain"


def test_the_public_tool_is_told_what_cannot_be_enforced(configure: Configure, auth: ComputeAuthClient) -> None:
    me = auth.userinfo()["sub"]
    project = auth.create_project("Site", "site@example.org", admin_ids=me)["project"]["id"]
    before = auth.get_policies().data
    options = ("--auth-policy-project-id", project, "--auth-policy-display-name", "strict")
    strict = configure("two", *options, "--high-assurance", "--subscription-id", project)
    assert strict.returncode != 0
    assert "high_assurance: this service cannot enforce it" in strict.stdout + strict.stderr
    assert auth.get_policies().data == before
    assert configure("three", *options).returncode == 0
    assert auth.get_policy(configure.policy_of("three"))["policy"]["project_id"] == project
