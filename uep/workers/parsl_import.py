"""Imports Parsl without what it does not need here: most of itself, the SDK, run-time type checks.

Runs in the endpoint, in Parsl's programs and in its workers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

from uep.workers import partial_import


@contextlib.contextmanager
def partial_parsl_imports(*, type_checks: bool = False) -> Iterator[None]:
    """Imports, inside, modules of Parsl without the rest of it, and without what only a few of them use.

    Afterwards all of that can be imported as ever. `type_checks`: whether Parsl's classes check their arguments.
    Where partial imports are turned off, Parsl is imported whole.
    """
    if not partial_import.ENABLED:
        yield
        return
    # None: cannot be imported. Parsl then leaves the SDK out.
    instead: dict[str, ModuleType | None] = {"globus_compute_sdk": None}
    if not type_checks:
        instead["typeguard"] = ModuleType("typeguard")
        vars(instead["typeguard"])["typechecked"] = lambda function: function
    instead = {name: module for name, module in instead.items() if name not in sys.modules}
    sys.modules.update(instead)  # type: ignore[arg-type]
    try:
        with partial_import.partial_imports("parsl", "parsl.executors", "requests"):
            yield
    finally:
        for name in instead:
            del sys.modules[name]
