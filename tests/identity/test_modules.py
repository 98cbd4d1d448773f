"""What the package may use: text in, decision out."""

from __future__ import annotations

import ast
import builtins
import typing
from pathlib import Path

import pytest

import identity

FILES = sorted(Path(identity.__file__).parent.glob("*.py"))
OUTSIDE = {"os", "subprocess", "pwd", "grp", "signal", "socket", "threading", "multiprocessing", "ctypes", "pathlib"}


def imported(path: Path) -> set[str]:
    """Modules that the file imports, wherever in it: `a.b` for `from a import b` too, if that is a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_files_processes_or_accounts(path: Path) -> None:
    assert {name.split(".")[0] for name in imported(path)} & OUTSIDE == set()
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert "open" not in names


def test_no_import_circle() -> None:
    names = {f"identity.{path.stem}": path for path in FILES if path.stem != "__init__"}
    waiting = {name: imported(path) & names.keys() for name, path in names.items()}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert waiting == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_shadows_a_builtin_or_a_name_of_typing(path: Path) -> None:
    taken = set(dir(builtins)) | set(typing.__all__)
    defined = {
        node.name for node in ast.parse(path.read_text()).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    assert defined & taken == set()
