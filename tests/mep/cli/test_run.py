"""What `mep start` and `mep list` say before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_PAM = """
import sys
sys.modules['pamela'] = None
from mep.daemon.main import main
main(sys.argv[2:])
"""
"""The manager where the binding of PAM is not installed."""
COMMAND = "from mep.cli.main import main; main()"
ID = "ee9d42e2-85b1-487f-a350-9712bb321d5f"


def run(folder: Path, *arguments: str, program: str = COMMAND) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "MEP_CONFIG_DIR": str(folder), "MEP_RUN_DIR": str(folder / "run")}
    command = [sys.executable, "-I", "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_start_with_pam_where_there_is_none(profile_directory: Path, root: None) -> None:
    config = profile_directory / "config.yaml"
    config.write_text(f"{config.read_text()}pam: {{service_name: other}}\n")
    done = run(profile_directory.parent, "start", "prod", program=WITHOUT_PAM)
    assert done.returncode == os.EX_CONFIG, done.stderr
    assert "Traceback" not in done.stderr
    assert "mep: PAM cannot be loaded" in done.stderr


@pytest.mark.parametrize(
    ("home", "code", "said"),
    [({}, 0, "No profiles in /.globus_compute"), ({"HOME": "/root"}, os.EX_NOPERM, "/root/.globus_compute")],
    ids=["none", "another's"],
)
def test_a_home_that_is_not_ours(root: None, home: dict[str, str], code: int, said: str) -> None:
    """As in a container, and after `sudo -u` with root's environment."""
    nobody = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    command = [*nobody, sys.executable, "-I", "-c", COMMAND, "list"]
    environment = {"PATH": "/usr/bin:/bin", **home}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(("text", "shown"), [(None, "-"), (f'{{"endpoint_id": "{ID}"}}', ID), ("{}", "?")])
def test_a_list_shows_the_id_that_is_known(profile_directory: Path, text: str | None, shown: str) -> None:
    if text is not None:
        (profile_directory / "endpoint.json").write_text(text)
    done = run(profile_directory.parent, "list")
    assert done.stdout.splitlines()[1].split() == ["prod", "stopped", shown, "0"], done.stderr
    said = json.loads(run(profile_directory.parent, "list", "--json").stdout)
    assert said == [{"profile": "prod", "manager": "stopped", "endpoint": shown, "user_endpoints": 0}]


def test_a_list_has_profiles_without_config_yaml_and_nothing_that_is_none(profile_directory: Path) -> None:
    folder = profile_directory.parent
    for name, file in (
        ("bare", "user_config_template.yaml.j2"),
        ("plain", "user_config_template.yaml"),
        ("old", "config.py"),
    ):
        (folder / name).mkdir()
        (folder / name / file).touch()
    (folder / "uep.a.b").mkdir()
    (folder / "uep.a.b" / "endpoint.log").touch()
    done = run(folder, "list")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["bare", "old", "plain", "prod"], done.stderr
