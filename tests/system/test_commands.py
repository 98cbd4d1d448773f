"""The command line as a sysadmin uses it."""

from __future__ import annotations

import re
import stat
import time
from pathlib import Path

import pytest

from lab.hub import HubProcess
from lab.manager import ManagerProcess
from tests.system.conftest import MAPPING

pytestmark = pytest.mark.system


@pytest.fixture
def site(tmp_path: Path, hub: HubProcess) -> ManagerProcess:
    return ManagerProcess(tmp_path / "mep", hub, "admin", mapping=MAPPING, name="detached")


def test_version(site: ManagerProcess) -> None:
    assert re.fullmatch(r"mep \d+\.\d+\.\d+\n", site.run("version").stdout)


def test_configure_tells_what_it_made_and_what_to_do_next(site: ManagerProcess) -> None:
    done = site.run("configure", "prod", "--display-name", 'Say "hi"', "--contact-email", "a@example.org")
    assert done.returncode == 0, done.stderr
    profile = site.folder / "etc" / "prod"
    made = {path.name for path in profile.iterdir()}
    assert made == {
        "config.yaml",
        "example_identity_mapping_config.json",
        "user_config_template.yaml.j2",
        "user_config_schema.json",
        "user_environment.yaml",
    }
    assert all(name in done.stdout for name in made)
    assert "mep start prod" in done.stdout
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o022 for path in profile.iterdir())

    from mep.profile import load

    loaded = load(profile)
    assert (loaded.config.display_name, loaded.config.email) == ('Say "hi"', "a@example.org")
    assert loaded.mapper.warnings == ()


def test_files_can_be_given(site: ManagerProcess, tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_text("engine: {type: ThreadPoolEngine}\n")
    assert site.run("configure", "own", "--template-config", str(tmp_path / "t.j2")).returncode == 0
    assert (site.folder / "etc" / "own" / "user_config_template.yaml.j2").read_text().startswith("engine: {type: Th")
    missing = site.run("configure", "none", "--schema-config", str(tmp_path / "nosuch"))
    assert missing.returncode != 0
    assert "nosuch: cannot be read" in missing.stderr
    assert not (site.folder / "etc" / "none").exists()


def test_nobody_is_logged_in(site: ManagerProcess) -> None:
    done = site.run("whoami")
    assert done.returncode == 77
    assert "mep login" in done.stderr


def test_a_detached_manager_is_listed_and_stopped(site: ManagerProcess) -> None:
    site.configure()
    started = site.run("start", site.name, "--detach")
    assert started.returncode == 0, started.stderr
    assert "is registered" in started.stdout
    log = site.profile / "endpoint.log"
    deadline = time.monotonic() + 20
    while "consumes start commands" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)
    assert re.search(rf"^{site.name} +running +[0-9a-f-]{{36}}$", site.run("list").stdout, re.MULTILINE)
    assert site.run("stop", site.name).stdout == f"Endpoint {site.name} stopped.\n"
    assert "stopped" in site.run("list").stdout
    assert site.run("stop", site.name).stdout == f"Endpoint {site.name} is not running.\n"
    assert not (site.folder / "run" / site.name).exists()
