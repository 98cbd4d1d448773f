"""Clients of four Pythons at the profile of `mep configure`: tasks run in the client's, as bytecode of the client's."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from lab import pythons
from lab.accounts import LocalAccount
from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.conftest import need

pytestmark = pytest.mark.system

ACCOUNT = "meptest_pythons"
OURS = ".".join(platform.python_version_tuple()[:2])
SDK = metadata.version("globus-compute-sdk")
CLIENT = """
import json, sys, warnings
from globus_compute_sdk import Executor, ShellFunction
from globus_compute_sdk.errors import TaskExecutionFailed

def task(n):
    import platform
    parts = [k for k in range(n)]
    return {"sum": sum(parts), "python": platform.python_version(), "prefix": __import__("sys").prefix}

warnings.simplefilter("error")
with Executor(endpoint_id=sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
    try:
        print(json.dumps(ex.submit(task, 4).result(timeout=120)))
        said = ex.submit(ShellFunction("python3 -c 'import sys; print(sys.version_info[1])'")).result(timeout=60)
        print(json.dumps([said.returncode, said.stdout, said.stderr]))
    except TaskExecutionFailed as e:
        print(json.dumps(str(e)))
"""


@pytest.fixture(scope="module")
def account(root: None) -> Iterator[LocalAccount]:
    with LocalAccount(ACCOUNT) as account:
        yield account


@pytest.fixture(scope="module")
def site(folder: Path, hub: HubProcess, account: LocalAccount) -> Iterator[ManagerProcess]:
    """The default profile, of a site without internet: its Pythons are in PATH, its packages in a folder."""
    need(pythons.are_there(), "needs Pythons of several versions: lab/setup pythons")
    mapping = [{"source": "{username}", "match": "alice@example\\.org", "output": ACCOUNT}]
    manager = ManagerProcess(folder / "pythons", hub, "admin", mapping=mapping, name="pythons")
    manager.configure()
    template = manager.profile / "user_config_template.yaml.j2"
    text = template.read_text()
    assert "  #wheels: /opt/wheels\n" in text
    template.write_text(text.replace("  #wheels: /opt/wheels\n", f"  wheels: {pythons.wheels()}\n"))
    path = ":".join([*(str(pythons.folder(version)) for version in pythons.VERSIONS), "/usr/bin:/bin"])
    (manager.profile / "user_environment.yaml").write_text(f"PATH: {path}\n")
    manager.start()
    try:
        yield manager
    finally:
        manager.stop()


@pytest.fixture(scope="module")
def client_of(folder: Path) -> Any:
    """Makes the environment of a client, as its user would on another machine."""

    def made(version: str, sdk: str = SDK) -> Path:
        if (version, sdk) == (OURS, SDK):
            return Path(sys.executable)
        environment = folder / f"client-{version}-{sdk}"
        if not environment.exists():
            uv, python = [find_uv_bin(), "--quiet"], pythons.folder(version) / f"python{version}"
            subprocess.run([*uv, "venv", "--python", python, environment], check=True)
            packages = ["--no-index", "--find-links", pythons.wheels(), f"globus-compute-sdk=={sdk}"]
            subprocess.run([*uv, "pip", "install", "--python", environment / "bin" / "python", *packages], check=True)
        return environment / "bin" / "python"

    return made


def said_by(python: Path, hub: HubProcess, site: ManagerProcess, **options: Any) -> list[Any]:
    done = subprocess.run(
        [python, "-c", CLIENT, site.endpoint_id, json.dumps(options)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(hub.folder), **hub.client_environment("alice")},
        cwd=hub.folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def environments(account: LocalAccount) -> set[str]:
    """Those in the user's home, by the version of their Python."""
    folder = Path(account.home) / ".globus_compute" / ".environments"
    return {each.name.partition("-")[0] for each in folder.glob("python*") if each.is_dir()}


@pytest.mark.parametrize("version", sorted(pythons.VERSIONS, key=lambda version: version != OURS))
def test_each_client_has_its_python(
    version: str, hub: HubProcess, site: ManagerProcess, account: LocalAccount, client_of: Any
) -> None:
    """The own one comes first: nothing is made for it. No warning is said of versions, and none of a sandbox.

    The options differ, as a client of another Python would otherwise meet the user endpoint that runs.
    """
    task, shell = said_by(client_of(version), hub, site, workers=1 + pythons.VERSIONS.index(version))
    assert task["sum"] == 6
    assert task["python"].startswith(f"{version}.")
    assert shell[0] == 0
    assert shell[2] == ""
    if version == OURS:
        assert task["prefix"] == sys.prefix
        assert environments(account) == set()
    else:
        assert task["prefix"].startswith(f"{account.home}/.globus_compute/.environments/python{version}-")
        assert shell[1] == f"{version.partition('.')[2]}\n"
        assert f"python{version}" in environments(account)


def test_a_python_that_the_host_has_not(hub: HubProcess, site: ManagerProcess) -> None:
    (error,) = said_by(Path(sys.executable), hub, site, python_version="3.99")
    assert "There is no Python 3.99 on this host for your tasks; there are 3.10" in error


def test_a_requirement_that_there_is_not(hub: HubProcess, site: ManagerProcess, account: LocalAccount) -> None:
    mark = Path(account.home) / "mark"
    requirements = f"nosuchpackage-of-ours; touch {mark}\n'; touch {mark}; '\n$(touch {mark})"
    (error,) = said_by(Path(sys.executable), hub, site, requirements=requirements)
    assert "cannot be made: uv pip install failed with exit code" in error
    assert not mark.exists()


def test_who_sets_up_a_python_has_it(hub: HubProcess, site: ManagerProcess, client_of: Any) -> None:
    """Nothing is made beside it: with `worker_init` the client's is what that activates."""
    other = next(version for version in pythons.VERSIONS if version != OURS)
    environment = client_of(other).parents[1]
    uv = [find_uv_bin(), "--quiet", "pip", "install", "--python", environment / "bin" / "python"]
    parsl = f"parsl=={metadata.version('parsl')}"
    subprocess.run([*uv, "--no-index", "--find-links", pythons.wheels(), parsl], check=True)
    task, _ = said_by(client_of(other), hub, site, worker_init=f". {environment}/bin/activate")
    assert task["prefix"] == str(environment)
