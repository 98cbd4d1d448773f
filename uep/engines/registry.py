"""Makes engines, by the names that configurations use.

`cli` calls `make_engine` with the configuration's `engine` mapping, and gives the engine, which is not started yet, to
the endpoint. Importing this module, or making an engine, imports nothing heavy. A new engine is a module in this folder
with a subclass of `base.Engine`, and a line in `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from uep.config import ConfigError, unknown
from uep.engines.base import Engine, EngineContext
from uep.environments.wanted import read

ENGINES: Mapping[str, tuple[str, str]] = {
    "ThreadPoolEngine": ("uep.engines.thread_pool", "ThreadPoolEngine"),
    "ProcessPoolEngine": ("uep.engines.process_pool", "ProcessPoolEngine"),
    "GlobusComputeEngine": ("uep.engines.htex.engine", "GlobusComputeEngine"),
    "GlobusMPIEngine": ("uep.engines.htex.mpi", "GlobusMPIEngine"),
}
"""Name in the configuration: module and class."""

REPLACED = frozenset({"HighThroughputEngine"})
"""Those that configurations of earlier years still have."""


def make_engine(mapping: Mapping[str, Any], context: EngineContext, python: Mapping[str, Any] | None = None) -> Engine:
    """Makes the engine that `mapping` describes: its `type`, and options of that engine.

    python: the block of that name, which is checked with it.

    Raises:
        ConfigError: no such engine, no such option, a value of the wrong type, or no way to have another Python.
    """
    options = {key: value for key, value in mapping.items() if key != "type" and value is not None}
    name = mapping["type"]
    if name not in ENGINES:
        hint = f"; {name} was replaced by GlobusComputeEngine" if name in REPLACED else ""
        raise ConfigError(unknown("engine type", name, ENGINES) + hint)
    module, class_name = ENGINES[name]
    engine: Engine = getattr(import_module(module), class_name)(context, options)
    if python is not None:
        read(python)
        if problem := engine.python_problem:
            raise ConfigError(f"python: {problem}; take `python` out of the template, or change the engine")
    return engine
