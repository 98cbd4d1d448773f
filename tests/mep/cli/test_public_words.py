"""Every command, option, console script and exit code of the public package is here, or docs/migration.md says why not.

The installed public package is asked; so is ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from lab import peer
from lab.manager import MEP
from mep.cli.main import app
from tests.conftest import need

PROJECT = Path(__file__).parents[3]
MIGRATION = PROJECT / "docs" / "migration.md"
SPEC = PROJECT / "packaging" / "rpm" / "mep.spec"
QUESTION = """
import importlib.metadata, json, pathlib, re, sys
sys.argv = ["/x/globus-compute-endpoint"]  # it reads its own name when it is imported
import click, globus_compute_endpoint
from globus_compute_endpoint.cli import app

def options(command):
    found = [each for each in command.get_params(click.Context(command)) if isinstance(each, click.Option)]
    return sorted({name for each in found for name in (*each.opts, *each.secondary_opts)})

sources = [path.read_text() for path in pathlib.Path(globus_compute_endpoint.__file__).parent.rglob("*.py")]
points = importlib.metadata.distribution("globus-compute-endpoint").entry_points
print(json.dumps({
    "version": globus_compute_endpoint.__version__,
    "commands": {name: options(command) for name, command in app.commands.items()},
    "of all": options(app),
    "scripts": [point.name for point in points if point.group == "console_scripts"],
    "named codes": sorted({code for text in sources for code in re.findall(r"os\\.(EX_[A-Z]+)", text)}),
    "numbers": sorted({int(code) for text in sources for code in re.findall(r"\\bexit\\((-?\\d+)\\)", text)}),
}))
"""


@cache
def public() -> dict[str, Any]:
    python = peer.program().parent / "python"
    need(python.exists(), "needs the public package (lab/setup peer)")
    done = subprocess.run([python, "-I", "-c", QUESTION], capture_output=True, text=True, check=True, timeout=60)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def left_out() -> set[str]:
    """What the table of the documentation names as different or left out."""
    section = MIGRATION.read_text().split("## Commands")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


GROUP = typer.main.get_command(app)
COMMANDS: dict[str, Any] = dict(GROUP.commands)  # type: ignore[attr-defined]
COMMANDS |= {f"functions {name}": command for name, command in COMMANDS.pop("functions").commands.items()}


def options(command: Any) -> set[str]:
    names = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return names | {"-h", "--help"}


def test_it_is_the_version_that_we_are_like() -> None:
    from mep.registration.version import COMPATIBLE_VERSION

    assert public()["version"] == COMPATIBLE_VERSION
    assert COMPATIBLE_VERSION in MIGRATION.read_text()


def test_every_command_and_option_is_here_or_in_the_table() -> None:
    missing = {
        f"{name} {option}"
        for name, known in public()["commands"].items()
        for option in known
        if name not in COMMANDS or option not in options(COMMANDS[name])
    }
    assert missing - left_out() == set()
    assert missing == {"start --die-with-parent"}, "and the table says nothing that is not so"
    assert set(public()["of all"]) <= options(GROUP)


@pytest.mark.parametrize("option", ["-h", "--help", "--debug", "--no-color"])
def test_options_that_every_command_has(option: str) -> None:
    assert [name for name, command in COMMANDS.items() if option not in options(command)] == []


def test_an_option_means_the_same_in_every_command() -> None:
    """--identity is somebody of the service, --user an account; who takes the one, takes the other."""
    takes = {name: options(command) & {"--identity", "--user"} for name, command in COMMANDS.items()}
    both = {"--identity", "--user"}
    assert {name: told for name, told in takes.items() if told} == {
        "map": {"--identity"},  # an account is what it finds
        **dict.fromkeys(("explain", "render", "kill"), both),
    }


def test_the_version_is_an_option_too() -> None:
    said = [
        subprocess.run([MEP, word], capture_output=True, text=True, check=True) for word in ("--version", "version")
    ]
    assert said[0].stdout == said[1].stdout != ""


def test_help_has_the_commands_in_the_order_in_which_they_are_met() -> None:
    told = subprocess.run([MEP, "-h"], capture_output=True, text=True, check=True).stdout
    met = ("Set up", "configure", "Try before", "check", "Run", "start", "See", "status", "Steer", "kill", "version")
    found = [re.search(rf"^[│╭]─? {word} ", told, re.MULTILINE) for word in met]
    places = [each.start() if each else -1 for each in found]
    assert -1 not in places and places == sorted(places), told


@pytest.mark.parametrize("name", ["version", "python-exec", "start"])
def test_a_command_says_what_it_does(name: str) -> None:
    done = subprocess.run([MEP, name, "-h"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_every_console_script_is_a_public_name_of_the_package() -> None:
    link = r"^ln -s \.\./bin/mep %\{buildroot\}%\{prefix\}/public-names/([\w-]+)$"
    installed = set(re.findall(link, SPEC.read_text(), re.MULTILINE))
    assert set(public()["scripts"]) <= installed | left_out()


def test_a_public_name_is_the_same_program(tmp_path: Path) -> None:
    for name in public()["scripts"]:
        (tmp_path / name).symlink_to(MEP)
        done = subprocess.run([tmp_path / name, "version"], capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout.startswith("mep "), done.stderr
        usage = subprocess.run([tmp_path / name, "-h"], capture_output=True, text=True, check=False, timeout=60).stdout
        assert f"Usage: {name} " in usage


def test_every_exit_code_is_here_or_in_the_table() -> None:
    operation = (PROJECT / "docs" / "operation.md").read_text().split("## Exit codes")[1].split("\n## ")[0]
    known = {int(code) for code in re.findall(r"^\| (\d+) \|", operation, re.MULTILINE)}
    theirs = {getattr(os, name) for name in public()["named codes"]} | {code % 256 for code in public()["numbers"]}
    theirs |= {1, 2}  # those of the library of its command line
    told = {int(word) for word in left_out() if word.isdigit()}
    assert theirs - known - told == set()


@pytest.mark.parametrize(("arguments", "theirs", "ours"), [(["nosuch"], 2, os.EX_USAGE), (["stop", "nosuch"], 1, 78)])
def test_exit_codes_side_by_side(arguments: list[str], theirs: int, ours: int, tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "GLOBUS_COMPUTE_USER_DIR": str(tmp_path / "gc")}
    environment = {**variables, "MEP_CONFIG_DIR": str(tmp_path), "MEP_RUN_DIR": str(tmp_path / "run")}
    codes = [
        subprocess.run([program, *arguments], env=environment, capture_output=True, check=False, timeout=60).returncode
        for program in (peer.program(), MEP)
    ]
    assert codes == [theirs, ours]
    assert str(theirs) in left_out()
