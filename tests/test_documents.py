"""The documents keep up with the tree: links lead somewhere, files that are named exist, decisions have their form."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
DECISIONS = sorted((PROJECT / "docs" / "decisions").glob("[0-9]*.md"))
PACKAGES = "mep|uep|identity|wire|hub|lab|demo|benchmarks|tests|docs|packaging|systemd|templates"


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def anchors(path: Path) -> set[str]:
    """The headings of a document, as links name them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document: Path) -> None:
    """From the project's folder, or from `mep`."""
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{PACKAGES})/[\w./]*)(?:::\w+)?`", text)) | set(
        re.findall(r"`([a-z_/]+/\w+\.py)`", text)
    )
    missing = [path for path in named if not (PROJECT / path).exists() and not (PROJECT / "mep" / path).exists()]
    assert sorted(missing) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_nobody_is_told_to_install_what_is_somebody_elses(document: Path) -> None:
    """The name of this project is another's in the registry of Python packages."""
    assert not re.search(r"pip3? install (?:-\S+ )*mep\b", document.read_text(encoding="utf-8"))


def test_decisions_are_numbered_and_in_the_index() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    index = (PROJECT / "docs" / "decisions" / "README.md").read_text()
    assert re.findall(r"\((\d{4}-[\w-]+\.md)\)", index) == [path.name for path in DECISIONS]


@pytest.mark.parametrize("decision", DECISIONS, ids=name)
def test_a_decision_has_its_form(decision: Path) -> None:
    text = decision.read_text()
    assert text.startswith(f"# {decision.name[:4]}: ")
    assert re.search(r"^Date: \d{4}-\d\d-\d\d\b.*Status: ", text, re.MULTILINE)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert 15 <= len(text.splitlines()) <= 40


def test_the_picture_names_rooms_that_exist_and_needs_nothing_from_elsewhere() -> None:
    picture = PROJECT / "docs" / "architecture.svg"
    texts = ["".join(element.itertext()) for element in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    rooms = [text for text in texts if re.fullmatch(r"[a-z/]+/", text)]
    assert len(rooms) >= 8
    assert [room for room in rooms if not (PROJECT / "mep" / room / "__init__.py").exists()] == []
    assert not re.search(r"href|@import|@font-face|url\((?!#)", picture.read_text())
