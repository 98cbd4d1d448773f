"""docs/security.md keeps its word: each invariant names tests, and each test that is named is one that pytest runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [
    (int(number), what, held_by)
    for number, what, held_by in re.findall(r"^\| (\d+) \| (.*?) \| (.*) \|$", TEXT, re.MULTILINE)
]


def test_invariants_are_numbered_in_order() -> None:
    assert [number for number, _, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 25


@pytest.mark.parametrize(("number", "what", "held_by"), ROWS, ids=[str(number) for number, _, _ in ROWS])
def test_each_invariant_names_tests_and_nothing_else(number: int, what: str, held_by: str) -> None:
    assert what
    assert REFERENCE.findall(held_by), f"no test is named for invariant {number}"
    assert not REFERENCE.sub("", held_by).replace(",", "").strip(), "what is not a reference would not be checked"


def test_each_test_that_is_named_is_collected() -> None:
    """By pytest itself: a function that is there but never run holds nothing."""
    named = set(REFERENCE.findall(TEXT))
    files = sorted({file for file, _ in named})
    assert [file for file in files if not (PROJECT / file).is_file()] == []
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *files]
    environment = {**os.environ, "MEP_BOX": "1"}  # tests of the box count: tests/system/test_box.py runs them
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr}"
    collected = {tuple(line.partition("[")[0].split("::", 1)) for line in done.stdout.splitlines() if "::" in line}
    assert sorted(named - collected) == []


def test_each_module_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:mep|identity|uep|wire)/[\w/.]+)`", TEXT))
    assert named
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []
