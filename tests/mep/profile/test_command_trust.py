"""What an interpreter executes and imports is trusted like the interpreter. Programs alone: test_trust_of_files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mep.profile import command_trust
from mep.profile.errors import ConfigError

PYTHON = "/usr/bin/python3"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a script, a module, a package and data, all in order."""
    folder = tmp_path / "site"
    (folder / "package").mkdir(parents=True, mode=0o755)
    (folder / "data").mkdir(mode=0o755)
    for name in ("map.py", "helper.py", "package/__init__.py", "data/rows.csv"):
        (folder / name).write_text("pass\n")
        (folder / name).chmod(0o644)
    for path in (folder, folder / "package", folder / "data"):
        path.chmod(0o755)
    return folder


def problem(*command: object) -> str:
    with pytest.raises(ConfigError) as caught:
        command_trust.check([str(word) for word in command])
    return str(caught.value)


COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "script": lambda site: (PYTHON, site / "map.py"),
    "after an option": lambda site: (PYTHON, "-u", site / "map.py", "--quiet"),
    "in an option": lambda site: ("/bin/true", f"--script={site}/map.py"),
    "joined to an option": lambda site: ("/bin/true", f"-f{site}/map.py"),
    "in a line for a shell": lambda site: ("/bin/sh", "-c", f"exec {PYTHON} {site}/map.py --quiet"),
    "by env": lambda site: ("/usr/bin/env", "-S", "python3", site / "map.py"),
    "from the root": lambda site: (PYTHON, str(site / "map.py").lstrip("/")),
    "with dots": lambda site: (PYTHON, site / "data" / ".." / "map.py"),
}


@pytest.mark.parametrize("named", COMMANDS)
def test_a_script_that_everybody_may_write(site: Path, named: str) -> None:
    command = [str(word) for word in COMMANDS[named](site)]
    command_trust.check(command)
    (site / "map.py").chmod(0o666)
    assert "chmod go-w" in problem(*command)


@pytest.mark.parametrize("changed", ["helper.py", "package", "package/__init__.py", "."])
def test_what_a_script_may_import(site: Path, changed: str) -> None:
    command = (PYTHON, site / "map.py")
    command_trust.check([str(word) for word in command])
    (site / changed).chmod(0o777)
    assert str((site / changed).resolve()) in problem(*command)


def test_what_a_script_that_is_the_program_may_import(site: Path) -> None:
    (site / "map.py").write_text(f"#!{PYTHON}\n")
    (site / "map.py").chmod(0o755)
    command_trust.check([str(site / "map.py")])
    (site / "helper.py").chmod(0o666)
    assert "helper.py" in problem(site / "map.py")


def test_what_cannot_be_imported_is_not_looked_at(site: Path) -> None:
    (site / "data").chmod(0o777)
    (site / "data" / "rows.csv").chmod(0o666)
    command_trust.check([PYTHON, str(site / "map.py")])
    (site / "data" / "rows.py").touch()
    assert f"{site}/data" in problem(PYTHON, site / "map.py")


def test_a_folder_where_others_may_add_modules(site: Path) -> None:
    site.chmod(0o1777)  # does for the way to a program, and not here
    assert "use a folder that only root can write to" in problem(PYTHON, site / "map.py")
    assert "use a folder that only root can write to" in problem(PYTHON, site / "later.py")


@pytest.mark.parametrize("option", ["PYTHONPATH={}", "PYTHONPATH=/usr/lib:{}", "-I{}", "{}"])
def test_a_folder_that_modules_come_from(site: Path, option: str) -> None:
    command = ("/usr/bin/env", option.format(site), PYTHON, "-c", "import helper")
    command_trust.check(command)
    (site / "helper.py").chmod(0o666)
    assert "helper.py" in problem(*command)


def test_a_link_to_a_script_elsewhere(site: Path, tmp_path: Path) -> None:
    (tmp_path / "named").mkdir(mode=0o755)
    link = tmp_path / "named" / "map"
    link.symlink_to(site / "map.py")
    command_trust.check([PYTHON, str(link)])
    (site / "helper.py").chmod(0o666)  # Python imports from where the script lies
    assert "helper.py" in problem(PYTHON, link)


def test_packages_that_lead_back_have_an_end(site: Path) -> None:
    (site / "package" / "again").symlink_to(site / "package")
    (site / "package" / "up").symlink_to(site)
    command_trust.check([PYTHON, str(site / "map.py")])


def test_somebody_elses_interpreter_of_an_argument(site: Path, tmp_path: Path, root: None) -> None:
    interpreter = tmp_path / "python"
    interpreter.symlink_to(PYTHON)
    os.chown(interpreter, 12345, -1, follow_symlinks=False)
    (site / "map.py").write_text(f"#!{interpreter}\n")
    (site / "map.py").chmod(0o755)
    assert "belongs to uid 12345" in problem("/usr/bin/nice", site / "map.py")


@pytest.mark.parametrize(
    "argument",
    ["https://site.example/x", "--level=3", "", "/dev/stdin", "/dev/null", "-", "//", "a\0b", "/proc/self/fd/0"],
)
def test_what_names_no_file(argument: str) -> None:
    command_trust.check(["/bin/true", argument])
    assert command_trust.unfollowed(["/bin/true", argument]) == []


def test_what_cannot_be_followed_is_told(site: Path) -> None:
    command = [sys.executable, "-m", "site_map", "-c", "import x", "lib/map.py", "map.py", "-v", str(site / "map.py")]
    assert command_trust.unfollowed(command) == ["-m", "-c", "lib/map.py", "map.py"]
