"""The room as a whole: it is copied to where nothing of ours is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import imports
from uep import workers

FILES = sorted(Path(workers.__path__[0]).glob("*.py"))
OF_TASKS = {
    "dill",
    "globus_compute_sdk",
    "globus_compute_sdk.errors",
    "globus_compute_sdk.serialize",
    "globus_compute_sdk.version",
    "psutil",  # of Parsl; only to end what a task has started when its time is over
}
OF_PARSLS_PROGRAMS = {"parsl"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_uses_the_standard_library_the_sdk_and_parsl_only(file: Path) -> None:
    allowed = OF_PARSLS_PROGRAMS if file.stem == "parsl_program" else OF_TASKS
    for name in imports(file):
        first = name.split(".")[0]
        ours = name.startswith("uep.workers")
        assert ours or first in sys.stdlib_module_names or name in allowed or first in allowed & {"parsl"}, name


def test_a_copy_can_be_imported_where_nothing_is_installed(tmp_path: Path) -> None:
    room = tmp_path / "uep" / "workers"
    room.mkdir(parents=True)
    for file in FILES:
        shutil.copy(file, room)
    names = [f"uep.workers.{file.stem}" for file in FILES if file.stem != "__init__"]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {', '.join(names)}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
