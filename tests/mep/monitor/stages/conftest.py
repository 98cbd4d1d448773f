"""What tests of the helpers and of mapping programs share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.identity.samples import write_program


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other accounts can enter and write to, as /tmp: pytest's own is closed to them."""
    with tempfile.TemporaryDirectory(prefix="mep-test-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@pytest.fixture
def program(public: Path) -> Callable[..., Path]:
    """Writes an executable script; by default one for /bin/sh."""
    return partial(write_program, public)
