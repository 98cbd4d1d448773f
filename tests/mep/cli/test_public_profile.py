"""What `mep check` says of a profile that the public package has made and run."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import peer
from lab.waiting import until
from mep.cli import checks
from mep.cli.checks import FAIL, NOTE
from mep.profile.paths import Paths
from tests.conftest import need

pytestmark = pytest.mark.usefixtures("root")

RUNS = """
import pathlib, sys, time
sys.argv[0] = "/bin/globus-compute-endpoint"
from globus_compute_endpoint.cli import _pidfile
with _pidfile(pathlib.Path(sys.argv[1]), 90):
    time.sleep(600)
"""
"""The file that the public manager has while it runs, made by its own code."""


@pytest.fixture
def directory(profile_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(profile_directory.parent / "home"))
    return profile_directory


def said(directory: Path, verdict: str) -> str:
    folder = directory.parent
    lines = checks.lines(directory, Paths(folder, folder / "state", folder / "run", folder), files_only=True)
    return "\n".join(f"{line.what}: {line.text}" for line in lines if line.verdict == verdict)


@pytest.fixture
def public_manager(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    need(peer.program().exists(), "needs the public package: lab/setup peer")
    process = subprocess.Popen([peer.program().parent / "python", "-c", RUNS, directory / "daemon.pid"])
    try:
        until(lambda: (directory / "daemon.pid").exists(), "the pid file", 60)
        yield process
    finally:
        process.terminate()
        process.wait()


def test_a_manager_of_the_old_kind_that_runs_is_in_the_way(
    directory: Path, public_manager: subprocess.Popen[bytes]
) -> None:
    assert f"runs (process {public_manager.pid}" in said(directory, FAIL)


def test_its_file_that_was_left_is_named(directory: Path) -> None:
    (directory / "daemon.pid").write_text("5\n")
    os.utime(directory / "daemon.pid", (time.time() - 600,) * 2)
    assert "daemon.pid: was left by the public package's manager" in said(directory, NOTE)
    assert "daemon.pid" not in said(directory, FAIL)


def test_paths_that_name_the_old_folder_are_named(directory: Path) -> None:
    old = directory.parent / ".globus_compute" / "prod"
    old.mkdir(parents=True)
    (directory / "mapping.json").rename(old / "mapping.json")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["identity_mapping_config_path"] = str(old / "mapping.json")
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    told = said(directory, NOTE)
    assert f"identity_mapping_config_path: {old / 'mapping.json'} is in the old folder" in told


def test_the_login_of_the_public_package_is_named_until_there_is_one(directory: Path) -> None:
    old = directory.parent / "home" / ".globus_compute" / "storage.db"
    old.parent.mkdir(parents=True)
    old.write_text("")
    ours = directory.parent / "state" / "storage.db"
    assert f"install -D -m 600 {old} {ours}" in said(directory, NOTE)
    ours.parent.mkdir()
    ours.write_text("")
    assert "storage.db" not in said(directory, NOTE)


def test_code_as_configuration_is_refused(directory: Path) -> None:
    (directory / "config.py").write_text("config = 1")
    assert "a configuration that is code is not executed here" in said(directory, FAIL)


def test_what_comes_from_the_account_and_the_example_of_old_are_named(directory: Path) -> None:
    (directory / "user_environment.yaml").write_text("HOME: /x\nSITE: here\n")
    mapping = (directory / "mapping.json").read_text().strip()
    example = '{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/false", "--some"]}'
    documents = mapping.removeprefix("[").removesuffix("]")
    (directory / "mapping.json").write_text(f"[{example}, {documents}]")
    told = said(directory, NOTE)
    assert "HOME: not used" in told
    assert "/bin/false decides nothing" in told
