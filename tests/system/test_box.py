"""The tests of `tests/box`, run in a box where systemd is process 1, with the package of this tree and a newer one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.box.machine import PROJECT, Box, obstacle
from tests.conftest import need

pytestmark = pytest.mark.system

TIMEOUT = 900.0
"""Seconds for all tests in the box."""
BUILD_TIMEOUT = 300.0


def test_in_a_box(folder: Path) -> None:
    reason = obstacle()
    need(reason is None, reason or "")
    packages = [build(PROJECT, folder / "package"), build(newer(folder / "project"), folder / "newer")]
    environment = {"MEP_BOX": "1", "MEP_PACKAGES": json.dumps(list(map(str, packages)))}
    environment |= {key: os.environ[key] for key in ("CI", "MEP_PEER") if key in os.environ}
    pytest_ = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-x", "--durations=10", "tests/box"]
    with Box(folder / "box", read_only=[package.parent for package in packages]) as box:
        done = box.run(*pytest_, check=False, env=environment, cwd=PROJECT, timeout=TIMEOUT)
        journal = box.shell("journalctl --no-pager --lines=60").stdout if done.returncode else ""
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nThe end of the box's journal:\n{journal}"
    print(done.stdout)


def build(project: Path, output: Path) -> Path:
    """The binary package of a tree, alone in a folder that the box can see."""
    command = [project / "packaging" / "rpm" / "build", output]
    environment = {**os.environ, "MEP_RPM_FAST": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    for source in output.glob("*.src.rpm"):
        source.unlink()
    (package,) = output.glob("*.rpm")
    return package


def newer(copy: Path) -> Path:
    """A copy of this tree with a later version and another /etc/mep/environment."""
    ignored = shutil.ignore_patterns(".git", "dist", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
    shutil.copytree(PROJECT, copy, ignore=ignored)
    for name in ("pyproject.toml", "mep/__init__.py"):
        text = (copy / name).read_text()
        (copy / name).write_text(re.sub(r'^((?:__)?version(?:__)? = )".*"$', r'\1"99.0.0"', text, flags=re.MULTILINE))
    with (copy / "packaging" / "etc" / "environment").open("a") as file:
        file.write("# newer\n")
    return copy
