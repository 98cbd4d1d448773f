"""Places that variables name, and in which others can put something: no command reads or writes there."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mep.processes.process import Process

pytestmark = pytest.mark.usefixtures("root")
NOBODY = 65534
MEP = "from mep.cli.main import main; main()"


@dataclass(frozen=True)
class Site:
    """Variables, and the folders that they name."""

    profile: Path
    run: Path
    state: Path

    def mep(self, *arguments: str, program: str = MEP) -> subprocess.CompletedProcess[str]:
        """Runs one command as root."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "MEP_CONFIG_DIR": str(self.profile.parent),
            "MEP_RUN_DIR": str(self.run),
            "MEP_STATE_DIR": str(self.state),
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": "http://localhost:1/",
        }
        command = [sys.executable, "-I", "-c", program, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def site(profile_directory: Path) -> Site:
    made = Site(profile_directory, profile_directory.parent / "run", profile_directory.parent / "state")
    made.run.mkdir(mode=0o755)
    made.state.mkdir(mode=0o700)
    return made


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of root's that has nothing to do with it."""
    with subprocess.Popen(["sleep", "120"]) as process:
        yield process
        process.kill()


def of_others(path: Path) -> None:
    """Gives away a file, or a folder with all that is in it."""
    for each in (path, *path.rglob("*")):
        os.chown(each, NOBODY, NOBODY, follow_symlinks=False)


def open_run(site: Site) -> None:
    site.run.chmod(0o777)


def sticky_run(site: Site) -> None:
    site.run.chmod(0o1777)


def planted_folder(site: Site) -> None:
    (site.run / "prod").mkdir()
    of_others(site.run / "prod")


def planted_link(site: Site) -> None:
    (site.run / "prod").mkdir()
    (site.run / "prod" / "status").symlink_to("/etc/mep-test-target")
    os.chown(site.run / "prod" / "status", NOBODY, NOBODY, follow_symlinks=False)


def sticky_state(site: Site) -> None:
    site.state.chmod(0o1777)


def open_state(site: Site) -> None:
    site.state.chmod(0o777)


def planted_tokens(site: Site) -> None:
    sqlite3.connect(site.state / "storage.db").close()
    (site.state / "storage.db").touch()
    of_others(site.state / "storage.db")


def sticky_profile(site: Site) -> None:
    site.profile.chmod(0o1777)


def planted_log(site: Site) -> None:
    (site.profile / "endpoint.log").symlink_to("/etc/mep-test-target")
    os.chown(site.profile / "endpoint.log", NOBODY, NOBODY, follow_symlinks=False)


def sticky_audit(site: Site) -> None:
    (site.profile.parent / "audit").mkdir()
    (site.profile.parent / "audit").chmod(0o1777)
    config = site.profile / "config.yaml"
    config.write_text(f"{config.read_text()}audit_log_path: {site.profile.parent}/audit/audit.log\n")


@pytest.mark.parametrize(
    ("spoil", "commands"),
    [
        (open_run, ("start", "stop", "status", "reload", "list", "check")),
        (sticky_run, ("start", "stop", "list")),
        (planted_folder, ("stop", "status")),
        (planted_link, ("start", "check")),
        (open_state, ("start", "login")),
        (sticky_state, ("whoami", "check")),
        (planted_tokens, ("start", "login")),
        (sticky_profile, ("start", "check")),
        (planted_log, ("start",)),
        (sticky_audit, ("start", "check")),
    ],
)
def test_each_command_refuses_the_place(site: Site, spoil: Callable[[Site], None], commands: tuple[str, ...]) -> None:
    spoil(site)
    for command in commands:
        name = () if command in ("list", "login", "whoami") else ("prod",)
        done = site.mep(command, *name)
        told = f"{done.stdout}{done.stderr}"
        assert done.returncode == os.EX_CONFIG, (command, told)
        assert "others than root may write" in told or f"belongs to uid {NOBODY}" in told or "is a link" in told, told
        assert "Traceback" not in told
        assert not Path("/etc/mep-test-target").exists()


def test_a_refused_start_is_not_noted_there(site: Site) -> None:
    open_run(site)
    assert site.mep("start", "prod").returncode == os.EX_CONFIG
    assert list(site.run.iterdir()) == []


@pytest.mark.parametrize("mended", [False, True], ids=["open", "mended"])
def test_a_planted_record_ends_no_process(site: Site, bystander: subprocess.Popen[bytes], mended: bool) -> None:
    """Whoever could write there has named a process of root's as a user endpoint; `mep stop` is to end it."""
    site.run.chmod(0o777)
    folder = site.run / "prod" / "u0"
    folder.mkdir(parents=True)
    process = Process.of(bystander.pid, NOBODY)
    facts = {"pid": process.pid, "start_time": process.start_time, "uid": NOBODY}
    (folder / "state.json").write_text(json.dumps({"process": facts, "scope": None, "executed": False}))
    of_others(site.run / "prod")
    if mended:
        site.run.chmod(0o755)
    done = site.mep("stop", "prod", "--user-endpoints")
    assert bystander.poll() is None, done.stdout
    assert done.returncode == os.EX_CONFIG, done.stderr
    shutil.rmtree(site.run / "prod")
    site.run.chmod(0o755)
    assert site.mep("stop", "prod").returncode == 0


@pytest.mark.parametrize("command", [("start", "prod"), ("check", "--files", "prod"), ("login",), ("whoami",)])
def test_authorities_that_others_can_change(site: Site, command: tuple[str, ...]) -> None:
    """Whoever writes there is the service, and so becomes every account that the mapping gives."""
    bundle = site.profile.parent / "bundle.pem"
    bundle.touch()
    bundle.chmod(0o666)
    (site.profile.parent / "environment").write_text(f"REQUESTS_CA_BUNDLE={bundle}\n")
    done = site.mep(*command)
    assert done.returncode == os.EX_CONFIG, done.stderr
    assert f"chmod go-w {bundle}" in done.stdout + done.stderr


def test_code_of_ours_that_others_can_change(site: Site) -> None:
    """A folder that is added to where Python looks, as a `.pth` file adds it."""
    added = site.profile.parent / "added"
    added.mkdir()
    added.chmod(0o1777)
    looks_there = f"import sys; sys.path.append({str(added)!r}); "
    daemon = f"{looks_there}from mep.daemon.main import main; main(sys.argv[2:])"
    check = f"{looks_there}from mep.cli.main import main; main()"
    for program, command in ((daemon, ("start", "prod")), (check, ("check", "--files", "prod"))):
        done = site.mep(*command, program=program)
        assert done.returncode == os.EX_CONFIG, done.stderr
        assert f"our own code: {added}: others than root may put files there" in done.stdout + done.stderr


def test_places_of_one_s_own_are_fine(site: Site) -> None:
    (site.run / "prod").mkdir(mode=0o700)
    assert site.mep("list").returncode == 0
    assert site.mep("stop", "prod").returncode == 0
    assert site.mep("status", "prod").returncode == 3
