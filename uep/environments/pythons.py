"""Finds the Pythons of this host by their names, `python3.12` and the like; none is started, and none is fetched."""

from __future__ import annotations

import glob
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from uep.environments.wanted import OLDEST, Wanted

_NAME = re.compile(r"python(3\.[0-9]{1,3})")


def find(version: str, search: Sequence[str]) -> Path | None:
    """Finds a Python of this major and minor version: in the folders of `search`, then in those of PATH."""
    if version == ".".join(platform.python_version_tuple()[:2]):
        return Path(getattr(sys, "_base_executable", None) or sys.executable)
    return next((path for found, path in _all(search) if found == version), None)


def versions(search: Sequence[str]) -> list[str]:
    """Lists the versions that there are and that workers run in."""
    ours = ".".join(platform.python_version_tuple()[:2])
    minors = {int(version.split(".")[1]) for version in (ours, *(found for found, _ in _all(search)))}
    return [f"3.{minor}" for minor in sorted(minors) if minor >= OLDEST]


def notes(wanted: Wanted) -> list[str]:
    """Says, for `mep check`, what of the block `python` is not there for whoever asks."""
    said = [f"python.search: {each} names no folder here" for each in wanted.search if not folders([each])]
    wheels = (wanted.wheels or "").removeprefix("file://")
    if wheels.startswith("/") and not os.access(wheels, os.R_OK | os.X_OK):
        said.append(f"python.wheels: {wheels} is not there, or not everybody can read it")
    return said


def folders(search: Sequence[str]) -> list[Path]:
    """Lists the folders that `search` names."""
    return [Path(found) for pattern in search for found in sorted(glob.glob(pattern))]  # noqa: PTH207 - absolute


def _all(search: Sequence[str]) -> Iterator[tuple[str, Path]]:
    path = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each.startswith("/")]
    for folder in [*folders(search), *path]:
        try:
            names = sorted(each.name for each in folder.iterdir())
        except OSError:
            continue
        for name in names:
            if (match := _NAME.fullmatch(name)) and os.access(folder / name, os.X_OK):
                yield match[1], folder / name
