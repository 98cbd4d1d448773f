"""What tests of the storage share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def files_of_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Closes what stores have open: they end with their process, and here there are hundreds in one."""
    yield
    for name in os.listdir("/proc/self/fd"):
        path = Path("/proc/self/fd") / name
        if os.path.islink(path) and os.readlink(path).startswith(str(tmp_path_factory.getbasetemp())):
            os.close(int(name))
