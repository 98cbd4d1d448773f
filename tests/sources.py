"""What a source file says, without running it."""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path


def imports(path: Path, modules: Collection[str] = ()) -> set[str]:
    """The full names of the modules that a file imports, wherever in the file it does.

    modules: those that are told from what is in them: of `from a import b`, `a.b` if it is one of these, else `a`.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else module for name in inner}
    return found
