"""The arrows of the architecture: who may import whom. Held for every module; imports inside functions count."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST
from tests.sources import imports

PROJECT = Path(__file__).parents[1]
PACKAGES = {
    "wire": {"wire"},
    "identity": {"identity"},
    "mep": {"mep", "identity", "wire"},
    "uep": {"uep", "wire"},
    "hub": {"hub", "wire"},
}
"""Who may import which of our packages. What is not installed (lab, demo, benchmarks, tests) may import all of them."""
OURS = {*PACKAGES, "lab", "demo", "benchmarks", "tests"}
ROOMS = {
    "request": set[str](),
    "profile": set[str](),
    "privileged": {"request"},
    "processes": {"request", "privileged"},
    "accounts": {"request", "privileged", "processes"},
    "renderer": {"request", "privileged", "processes"},
    "mapper": {"request", "privileged", "processes", "identity"},
    "reader": {"request", "processes", "profile", "renderer", "identity"},
    "registration": {"request", "profile", "wire"},
    "worker": {"request", "processes", "privileged", "wire"},
    "exporter": {"processes"},
    "monitor": {"request", "profile", "privileged", "processes"},
}
ROOMS["daemon"] = {*ROOMS, "wire"}
"""Who of `mep` may import which other room and package of ours. Not named: `cli`, which may import all and nobody it.
`daemon` puts the others together: only `cli` may import it.
`reader` asks `renderer` what is wrong with a template, before anything is filled into it."""
NAMES = {"identity", "identity.account_name"}
"""What may be the name of an account: every room may import that, since whoever has a name in hand goes by it."""
THIRD_PARTY = {
    "request": set[str](),
    "profile": set[str](),
    "privileged": {"pamela"},
    "processes": set[str](),
    "accounts": set[str](),
    "renderer": {"jinja2", "jsonschema", "yaml"},
    "mapper": set[str](),
    "reader": {"jsonschema", "yaml"},
    "registration": {"globus_sdk", "packaging"},
    "worker": {"cryptography", "h11"},
    "exporter": set[str](),
    "monitor": set[str](),
    "daemon": {"daemon"},
}
"""What rooms import that is neither of ours nor of the standard library."""


def modules(*packages: str) -> dict[str, Path]:
    """Every module of these packages, by its dotted name."""
    found = {}
    for package in packages:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    assert found
    return found


MODULES = modules(*PACKAGES)


def imported(module: str) -> set[str]:
    """The modules that a module of ours imports."""
    return imports(MODULES[module], MODULES)


def room(module: str) -> str:
    """The room of a module of mep; of another package the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "mep" and len(parts) > 1 else parts[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_import_only_along_the_arrows(module: str) -> None:
    package = module.split(".")[0]
    ours = {name.split(".")[0] for name in imported(module)} & OURS
    assert ours <= PACKAGES[package]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room(name) in ROOMS))
def test_rooms_import_only_along_the_arrows(module: str) -> None:
    here = room(module)
    for name in imported(module):
        top = name.split(".")[0]
        if top in OURS:
            there = room(name)
            assert there == here or there in ROOMS[here] or name in {"mep", *NAMES}, f"{here} may not import {name}"
        else:
            assert top in sys.stdlib_module_names | THIRD_PARTY[here], f"{here} may not import {name}"


def test_every_room_is_known() -> None:
    found = {path.parent.name for path in (PROJECT / "mep").glob("*/__init__.py")}
    assert found == {*ROOMS, "cli"}
    assert set(ROOMS) == set(THIRD_PARTY)


def test_nobody_imports_the_command_line() -> None:
    for module in MODULES:
        assert room(module) == "cli" or not any(name.startswith("mep.cli") for name in imported(module)), module


def test_only_the_command_line_imports_the_daemon() -> None:
    for module in MODULES:
        by_others = room(module) not in ("cli", "daemon") and any(n.startswith("mep.daemon") for n in imported(module))
        assert not by_others, module


def test_there_is_no_circle() -> None:
    arrows = {module: {name for name in imported(module) if name in MODULES} - {module} for module in MODULES}
    while leaves := [module for module, imported in arrows.items() if not imported & arrows.keys()]:
        for module in leaves:
            del arrows[module]
    assert not arrows, f"these import each other: {sorted(arrows)}"


def test_identity_imports_only_the_standard_library_and_itself() -> None:
    for module in modules("identity"):
        for name in imported(module):
            assert name.split(".")[0] in sys.stdlib_module_names | {"identity"}, f"{module} imports {name}"


def test_every_package_is_installed() -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    listed = set(
        re.findall(r'"([\w.]+)"', text[text.index("\npackages = [") : text.index("[tool.setuptools.package-dir]")])
    )
    found = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert listed == found | {"mep.templates"}


def test_files_that_begin_first_are_there() -> None:
    assert [file for file in LONGEST_FIRST if not (PROJECT / "tests" / file).is_file()] == []


def test_no_test_module_imports_another() -> None:
    for path in sorted((PROJECT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                wanted = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                tests = [name for name in wanted if name.rpartition(".")[2].startswith("test_")]
                assert not tests, f"{path} imports {tests}"
