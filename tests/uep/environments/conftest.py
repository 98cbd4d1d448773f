"""A user's folder for environments, a folder of packages in place of an index, and how one is asked for."""

from __future__ import annotations

import asyncio
import platform
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab import pythons
from tests.conftest import need
from uep.environments import making
from uep.environments.wanted import read

OURS = ".".join(platform.python_version_tuple()[:2])
VERSION = next(version for version in reversed(pythons.VERSIONS) if version != OURS)
"""A Python that the host has, and that is not ours."""
Make = Callable[..., Path | None]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """What workers need, and the package `tinypackage`, which needs nothing."""
    need(pythons.are_there(), "needs Pythons of several versions: lab/setup pythons")
    folder = tmp_path / "wheels"
    folder.mkdir()
    for wheel in pythons.wheels().iterdir():
        (folder / wheel.name).symlink_to(wheel)
    with zipfile.ZipFile(folder / "tinypackage-1.0-py3-none-any.whl", "w") as wheel:
        info = "tinypackage-1.0.dist-info"
        wheel.writestr("tinypackage.py", "ANSWER = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.0\n")
        kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", kind)
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def block(tmp_path: Path, wheels: Path) -> dict[str, Any]:
    """The block `python` of a site without internet."""
    search = [str(pythons.folder(version)) for version in pythons.VERSIONS]
    return {"folder": str(tmp_path / "environments"), "wheels": str(wheels), "search": search, "timeout": 120}


@pytest.fixture
def make(block: dict[str, Any]) -> Make:
    """Makes an environment, as an endpoint does; `told` gets what tasks are said to wait for."""

    return _made(block)


@pytest.fixture
def make_without_packages(tmp_path: Path) -> Make:
    """Does, where no package is needed to see what comes of it."""
    return _made({"folder": str(tmp_path / "environments")})


def _made(block: dict[str, Any]) -> Make:
    def made(told: list[str] | None = None, **keys: Any) -> Path | None:
        wanted, tell = read({**block, **keys}), [] if told is None else told
        with ThreadPoolExecutor(1) as thread:
            return asyncio.run(making.ready(wanted, thread, tell.append))

    return made
