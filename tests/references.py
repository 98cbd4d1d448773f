"""Tests that a document names, and whether pytest runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).parents[1]
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def not_collected(named: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those (file, function) that pytest itself does not find: a function that is there but never run holds nothing."""
    named = set(named)
    files = sorted({file for file, _ in named})
    assert [file for file in files if not (PROJECT / file).is_file()] == []
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *files]
    environment = {**os.environ, "MEP_BOX": "1"}  # tests of the box count: tests/system/test_box.py runs them
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr}"
    collected = {tuple(line.partition("[")[0].split("::", 1)) for line in done.stdout.splitlines() if "::" in line}
    return sorted(named - collected)
