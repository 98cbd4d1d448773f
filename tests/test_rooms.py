"""The manual page of each room of `mep` keeps its word: FILES names what is there, IMPORTS what its files import."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = {path.parent.relative_to(PROJECT): path for path in sorted((PROJECT / "mep").rglob("__init__.py"))}
ROOMS_BELOW = [room for room in ROOMS if room != Path("mep")]
"""All but the house itself, whose page is the map of the rooms."""
SECTIONS = ("PROCESS", "CALLED BY", "IMPORTS", "FILES")


def page(room: Path) -> str:
    text = ast.get_docstring(ast.parse(ROOMS[room].read_text()))
    assert text, f"{room} has no manual page"
    return text


def section(room: Path, heading: str) -> str:
    """The text under a heading, to the next line that is not indented."""
    found = re.search(rf"^{heading}\b.*\n((?:  .*\n|\n)*)", page(room) + "\n", re.MULTILINE)
    assert found, f"the manual page of {room} has no section {heading}"
    return found[1].rstrip()


def listed(room: Path) -> list[str]:
    """The names in FILES; each line has one, and says what it is for."""
    return [name for name, _ in re.findall(r"^  ([a-z_]+(?:\.py|/)) {1,}(\S.*)$", section(room, "FILES"), re.MULTILINE)]


def there(room: Path) -> list[str]:
    """Python files and rooms in the folder."""
    folder = PROJECT / room
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    return sorted(files | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")})


def declared(room: Path) -> set[str]:
    """The names in IMPORTS: rooms, then, after a semicolon, packages."""
    text = section(room, "IMPORTS").strip()
    return set() if text.startswith("nothing") else set(re.split(r"[,;]\s+", text))


def imported(room: Path) -> set[str]:
    """The rooms, by their names below `mep`, and the packages that files of the room import, wherever they do it."""
    found = set()
    for path in (PROJECT / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name_of(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {name_of(f"{node.module}.{alias.name}") for alias in node.names}
    return found - {"", ".".join(room.parts[1:])}


def name_of(imported: str) -> str:
    """A module's room, if it is one of `mep`; else its package, and nothing for the standard library."""
    package = imported.partition(".")[0]
    if package != "mep":
        return "" if package in sys.stdlib_module_names else package
    path = Path(*imported.split("."))
    while path not in ROOMS:
        path = path.parent
    return ".".join(path.parts[1:])


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_files_are_those_that_the_page_names(room: Path) -> None:
    assert sorted(listed(room)) == there(room)


@pytest.mark.parametrize("room", ROOMS_BELOW, ids=str)
def test_imports_are_those_that_the_page_names(room: Path) -> None:
    assert sorted(imported(room)) == sorted(declared(room))


@pytest.mark.parametrize("room", ROOMS_BELOW, ids=str)
def test_a_page_has_all_its_sections(room: Path) -> None:
    for heading in SECTIONS:
        assert section(room, heading)
