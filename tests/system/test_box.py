"""The package in a box where systemd is process 1: the tests of `tests/box` run in it, and it crashes as a whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.box.machine import PROJECT, Box, obstacle
from lab.hub import HubProcess
from lab.waiting import until
from tests.box.guide import code
from tests.conftest import need
from tests.system.clients import submit_to

pytestmark = pytest.mark.system

TIMEOUT = 900.0
"""Seconds for all tests in the box."""
BUILD_TIMEOUT = 300.0
PROFILE = "/etc/mep/prod"
AUDIT = "/var/log/mep/audit.log"
SLEEPS = """
def task():
    import pathlib, time
    pathlib.Path("/home/alice/begun").touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def package(folder: Path) -> Path:
    """The package of this tree."""
    reason = obstacle()
    need(reason is None, reason or "")
    return build(PROJECT, folder / "package")


def test_in_a_box(folder: Path, package: Path) -> None:
    packages = [package, build(newer(folder / "project"), folder / "newer")]
    environment = {"MEP_BOX": "1", "MEP_PACKAGES": json.dumps(list(map(str, packages)))}
    environment |= {key: os.environ[key] for key in ("CI", "MEP_PEER") if key in os.environ}
    pytest_ = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-x", "--durations=10", "tests/box"]
    with Box(folder / "box", read_only=[package.parent for package in packages]) as box:
        done = box.run(*pytest_, check=False, env=environment, cwd=PROJECT, timeout=TIMEOUT)
        journal = box.shell("journalctl --no-pager --lines=60").stdout if done.returncode else ""
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nThe end of the box's journal:\n{journal}"
    print(done.stdout)


class Site:
    """A host with a manager that systemd starts at each boot; the service is elsewhere, and stays."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def install(self, package: Path, hub: HubProcess) -> None:
        """As docs/install.md tells, with one worker for each user endpoint."""
        admin = hub.users["admin"]
        self.box.run("useradd", "--create-home", "alice")
        self.box.run("rpm", "-i", package)
        client = f"client_id: {admin.client_id}\nclient_secret: {admin.client_secret}\n"
        self.box.run("/bin/sh", "-ec", 'umask 077; printf %s "$1" >/root/admin.client', "sh", client)
        headings = ("The values of your site", "2. Make a profile", "3. Say who becomes whom", "4. Log in")
        typed = [code("hub.md", "5. A manager"), *(code("install.md", heading) for heading in headings)]
        self.box.run("/bin/bash", "-euc", "\n".join(typed), env={"ADMIN": "admin"})
        keys = f"audit_log_path: {AUDIT}\n"
        engine = "engine: {type: ThreadPoolEngine, max_workers: 1}\n"
        self.box.run("/bin/sh", "-ec", f'printf %s "$1" >>{PROFILE}/config.yaml', "sh", keys)
        self.box.run("/bin/sh", "-ec", f'printf %s "$1" >{PROFILE}/user_config_template.yaml.j2', "sh", engine)
        self.box.shell("systemctl enable --now mep@prod || { journalctl --no-pager --unit=mep@prod >&2; exit 1; }")

    def endpoint_id(self) -> str:
        return str(json.loads(self.box.shell(f"cat {PROFILE}/endpoint.json").stdout)["endpoint_id"])

    def audit(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.box.shell(f"cat {AUDIT}").stdout.splitlines())
        return [line for line in lines if line["event"] == event]

    def taken(self) -> int:
        """How many tasks alice's user endpoints have taken and not answered."""
        return int(self.box.shell("cat ~alice/.globus_compute/*/open_tasks | grep -c ^+ || true").stdout)


def test_a_crash_of_the_whole_host(folder: Path, package: Path, hub: HubProcess) -> None:
    """A task runs, one waits behind it, one waits at the broker; their user only waits for the answers."""
    with Box(folder / "crash", read_only=[package.parent], own_network=False) as box, ThreadPoolExecutor() as client:
        site = Site(box)
        site.install(package, hub)
        endpoint_id = site.endpoint_id()
        taken = client.submit(submit_to, hub, endpoint_id, "alice", {}, {}, function=SLEEPS)
        until(
            lambda: site.taken() == 2 and box.run("test", "-e", "/home/alice/begun", check=False).returncode == 0,
            "one task to run, and one to be taken",
        )
        box.run("systemctl", "kill", "--signal=STOP", "mep-prod-uep.*.scope")
        queued = client.submit(submit_to, hub, endpoint_id, "alice", {})
        until(lambda: site.audit("refreshed"), "the third task to be at the broker")
        box.crash()
        answers = taken.result()
        assert len(answers) == 2
        for said in answers:
            assert "stopped before this task was finished" in said["error"] and "Submit it again" in said["error"]
        assert "uid" in queued.result()[0]
        assert box.run("systemctl", "is-active", "mep@prod").stdout.strip() == "active"
        assert len(site.audit("received")) == 2, "by nobody's asking"
        (recovering,) = site.audit("recovering")
        assert recovering["uid"] == int(box.run("id", "-u", "alice").stdout)
        first, second = site.audit("started")
        assert first["endpoint"] == second["endpoint"] == recovering["endpoint"]


def build(project: Path, output: Path) -> Path:
    """The binary package of a tree, alone in a folder that the box can see."""
    command = [project / "packaging" / "rpm" / "build", output]
    environment = {**os.environ, "MEP_RPM_FAST": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    for source in output.glob("*.src.rpm"):
        source.unlink()
    (package,) = output.glob("*.rpm")
    return package


def newer(copy: Path) -> Path:
    """A copy of this tree with a later version and another /etc/mep/environment."""
    ignored = shutil.ignore_patterns(".git", "dist", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
    shutil.copytree(PROJECT, copy, ignore=ignored)
    for name in ("pyproject.toml", "mep/__init__.py"):
        text = (copy / name).read_text()
        (copy / name).write_text(re.sub(r'^((?:__)?version(?:__)? = )".*"$', r'\1"99.0.0"', text, flags=re.MULTILINE))
    with (copy / "packaging" / "etc" / "environment").open("a") as file:
        file.write("# newer\n")
    return copy
