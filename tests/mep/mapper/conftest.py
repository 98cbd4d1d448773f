"""Real mapping programs for the tests of what runs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.identity.samples import write_program


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Writes an executable script; by default one for /bin/sh."""
    return partial(write_program, tmp_path)
