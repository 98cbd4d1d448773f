from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mep.monitor.stages import plan
from mep.processes.sealed_file import SealedFile
from mep.reader import loader
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint


@pytest.fixture
def planned(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> plan.LaunchPlan:
    site = loader.load(profile_directory)
    return plan.make(site, command, identity_of_alice, alice, RenderedConfig(SealedFile.of(b"engine: {}\n")))


def test_the_environment_is_built_from_nothing(planned: plan.LaunchPlan, command: StartEndpoint) -> None:
    assert planned.environment["HOME"] == "/home/alice"
    assert planned.environment["SITE"] == "here"
    assert planned.environment["GC_USER_PYTHON_VERSION"] == "3.11.2"
    assert planned.environment["GLOBUS_COMPUTE_ENDPOINT_NAME"] == command.name
    names = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "GLOBUS_COMPUTE_ENDPOINT_NAME", "CWD", "SITE", "NUMBER"}
    assert set(planned.environment) == names | {"GC_USER_PYTHON_VERSION", "GC_USER_SDK_VERSION"}


def test_the_accounts_own_variables_win_and_cwd_is_where_it_begins(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> None:
    own = "HOME: /x\nUSER: x\nSHELL: /x\nPWD: /x\nGLOBUS_COMPUTE_ENDPOINT_NAME: x\n"
    for site, cwd in (("", "/home/alice"), ("CWD: /scratch\n", "/scratch"), ("CWD: scratch\n", "/scratch")):
        (profile_directory / "user_environment.yaml").write_text(own + site)
        rendered = RenderedConfig(SealedFile.of(b""))
        made = plan.make(loader.load(profile_directory), command, identity_of_alice, alice, rendered)
        assert (made.directory, made.environment["CWD"]) == (cwd, cwd)
        assert made.environment["HOME"] == "/home/alice"
        assert made.environment["GLOBUS_COMPUTE_ENDPOINT_NAME"] == command.name
        assert "PWD" not in made.environment
        assert "/x" not in made.environment.values()


def test_versions_that_are_none_stay_out_of_the_environment(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> None:
    strange = dataclasses.replace(
        command, user_runtime=r'{"python": {"version": "3\n"}, "globus_compute_sdk_version": ["x"]}'
    )
    made = plan.make(
        loader.load(profile_directory), strange, identity_of_alice, alice, RenderedConfig(SealedFile.of(b""))
    )
    assert not {"GC_USER_PYTHON_VERSION", "GC_USER_SDK_VERSION"} & set(made.environment)


def test_a_plan_shows_no_password(planned: plan.LaunchPlan, command: StartEndpoint) -> None:
    assert "hunter2" not in repr(planned)
    assert not any("hunter2" in text for text in [*planned.argv, *planned.environment.values()])
    assert "amqp_creds" not in planned.handover
    assert planned.credentials is command.credentials.file
    assert planned.argv[-1] == command.name


def test_pinned_functions_are_handed_over_so_that_who_knows_none_runs_nothing(
    profile_directory: Path, command: StartEndpoint, identity_of_alice: MappedIdentity, alice: Account
) -> None:
    function, digest = "6d0b5a52-7d5b-4a4e-9f5a-0c7d3b1f5e01", "0f" * 32
    made = []
    for entry in (function, f"{function}@sha256:{digest}"):
        with (profile_directory / "config.yaml").open("a") as file:
            file.write(f"allowed_functions: [{entry!r}]\n" if not made else f"# {entry}\n")
        text = (profile_directory / "config.yaml").read_text()
        (profile_directory / "config.yaml").write_text(text.replace(f"[{function!r}]", f"[{entry!r}]"))
        rendered = RenderedConfig(SealedFile.of(b""))
        made.append(plan.make(loader.load(profile_directory), command, identity_of_alice, alice, rendered))
    plain, pinned = made
    assert plain.handover["allowed_functions"] == [function]
    assert "pinned_functions" not in plain.handover
    assert pinned.handover["allowed_functions"] == []
    assert pinned.handover["pinned_functions"] == {function: digest}
    assert "" != plain.functions != pinned.functions
