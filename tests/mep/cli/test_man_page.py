"""mep(8), docs/operation.md and the program say the same: commands, options, exit codes, variables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from lab.manager import MEP
from mep.cli.main import app
from mep.cli.watching import HANGS, NOT_RUNNING
from tests.conftest import need

PROJECT = Path(__file__).parents[3]
MAN = PROJECT / "packaging" / "man" / "mep.8"
OPERATION = PROJECT / "docs" / "operation.md"

group = typer.main.get_command(app)
COMMANDS: dict[str, object] = {
    name: command
    for name, command in group.commands.items()  # type: ignore[attr-defined]
    if not command.hidden
}
COMPATIBLE = {"--help", "--core-config", "--manager-config", "--multi-user", "--endpoint", "--template"}
COMPATIBLE |= {"--user-options", "--user-schema"}
"""Options that are there for those who come from the public package; told by --help."""


def section(name: str) -> str:
    """The text of one section of the manual page, without its formatting."""
    parts = re.split(r"^\.Sh (.*)$", MAN.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def words(text: str, macro: str) -> set[str]:
    """The arguments of this macro, wherever it stands in a line."""
    found = re.findall(rf"(?:^\.|\s){macro} ([^\s,]+(?: [,|] (?:{macro} )?[\w-]+)*)", text, re.MULTILINE)
    return {word for hit in found for word in re.split(r"[ ,|]+", hit) if word != macro}


def options(command: object) -> set[str]:
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}  # type: ignore[attr-defined]
    return own.union(*(options(each) for each in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("name", ["SYNOPSIS", "DESCRIPTION"])
def test_the_commands_are_those_of_the_program(name: str) -> None:
    assert words(section(name), "Cm") == set(COMMANDS)


def test_the_commands_in_the_documentation_are_those_of_the_program() -> None:
    block = OPERATION.read_text().split("\n\n")[1]
    lines = re.findall(r"^    mep ([a-z-]+(?:, [a-z-]+)*)", block, re.MULTILINE)
    told = {name for line in lines for name in line.split(", ")}
    assert told == set(COMMANDS)


def test_the_options_are_those_of_the_program() -> None:
    told = {f"-{word}" for word in words(section("SYNOPSIS") + section("DESCRIPTION"), "Fl")}
    known = set().union(*(options(command) for command in COMMANDS.values()), options(group))
    known = {option for option in known if option.startswith("-")}
    assert told - known == {"-h"}
    assert known - told <= COMPATIBLE | {"--install-completion", "--show-completion"}


def test_each_option_stands_with_its_command() -> None:
    for usage in re.split(r"^\.Nm\n", section("SYNOPSIS"), flags=re.MULTILINE)[1:]:
        told = {f"-{word}" for word in words(usage, "Fl")} - {"-c"}
        for name in words(usage, "Cm"):
            assert told <= options(COMMANDS[name]), name


def codes_of_the_documentation() -> dict[int, str]:
    text = OPERATION.read_text().split("## Exit codes")[1].split("\n## ")[0]
    return {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)}


def codes_of_the_manual() -> dict[int, str]:
    return {
        int(code): text
        for code, text in re.findall(r"^\.It (\d+)\n((?:.+\n)+?)(?=\.It|\.El)", section("EXIT STATUS"), re.MULTILINE)
    }


def codes_of_the_program() -> set[int]:
    """The exit codes that the source names, and those of success and of the answer no."""
    sources = [path.read_text() for path in (PROJECT / "mep").rglob("*.py")]
    return {
        0,
        1,
        NOT_RUNNING,
        HANGS,
        *(getattr(os, name) for text in sources for name in re.findall(r"os\.(EX_[A-Z]+)", text)),
    }


def test_the_exit_codes_of_the_documentation_are_the_programs() -> None:
    assert set(codes_of_the_documentation()) == codes_of_the_program()


def test_the_exit_codes_of_the_manual_are_the_programs() -> None:
    assert set(codes_of_the_manual()) == codes_of_the_program()


@pytest.mark.parametrize(
    "arguments", [["nosuch"], ["render"], ["start", "--nosuch", "x"], ["start", "a", "b"]], ids=str
)
def test_wrong_usage_ends_with_64(arguments: list[str]) -> None:
    done = subprocess.run([MEP, *arguments], capture_output=True, check=False, timeout=20)
    assert done.returncode == os.EX_USAGE


def test_variables_are_those_that_the_program_reads() -> None:
    told = set(re.findall(r"^\.It Ev (\S+)", section("ENVIRONMENT"), re.MULTILINE))
    read = set(re.findall(r'"(MEP_[A-Z_]+)"', (PROJECT / "mep" / "profile" / "paths.py").read_text()))
    assert told == read


def test_the_manual_page_is_well_formed() -> None:
    need(shutil.which("mandoc") is not None, "needs mandoc (lab/setup box)")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", MAN], capture_output=True, text=True, check=False)
    assert done.stdout == ""
