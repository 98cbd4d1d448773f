"""Real mapping programs for the tests of identity mapping."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from .samples import write_program


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Writes an executable script; by default one for /bin/sh."""
    return partial(write_program, tmp_path)
