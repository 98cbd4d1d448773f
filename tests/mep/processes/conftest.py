"""What the tests of processes have in common: many of them count descriptors."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def nothing_of_other_modules() -> None:
    """What their tests have left to the garbage collector is closed before a module's descriptors are counted."""
    gc.collect()
