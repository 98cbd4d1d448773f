"""The import arrows of the architecture: who may know whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
OURS = {"mep", "uep", "identity", "wire", "hub", "lab", "demo", "benchmarks"}
ALLOWED = {
    "wire": {"wire"},
    "identity": {"identity"},
    "mep": {"mep", "identity", "wire"},
    "uep": {"uep", "wire"},
    "hub": {"hub", "wire"},
}


def imports(path: Path) -> set[str]:
    """The full names of the modules that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def files(package: str) -> list[Path]:
    found = sorted((PROJECT / package).rglob("*.py"))
    assert found, f"no files in {package}"
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_along_the_arrows(package: str) -> None:
    for path in files(package):
        ours = {name.split(".")[0] for name in imports(path)} & OURS
        assert ours <= ALLOWED[package], f"{path} imports {ours - ALLOWED[package]}"


def test_privileged_code_imports_only_the_standard_library_and_itself() -> None:
    for path in files("mep/privileged"):
        for name in imports(path):
            allowed = name.split(".")[0] in sys.stdlib_module_names or name.startswith("mep.privileged")
            allowed = allowed or name == "mep.request.launch_spec"  # plain data, which imports nothing of ours
            allowed = allowed or (path.name == "session.py" and name == "pamela")
            assert allowed, f"{path} imports {name}"


def test_identity_imports_only_the_standard_library_and_itself() -> None:
    for path in files("identity"):
        for name in imports(path):
            assert name.split(".")[0] in sys.stdlib_module_names | {"identity"}, f"{path} imports {name}"


def test_nothing_that_is_installed_imports_the_lab() -> None:
    for package in ALLOWED:
        for path in files(package):
            assert not {name.split(".")[0] for name in imports(path)} & {"lab", "demo", "tests", "benchmarks"}
