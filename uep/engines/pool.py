"""Keeps what the two pools on this machine have in common: the figures of their heartbeats, and what they refuse.

The public package sends 0 for tasks that wait or run; here these are the real numbers.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from uep.config import ConfigError
from uep.engines.base import Engine, TaskRequest


class PoolEngine(Engine):
    """A fixed number of workers on this machine. `max_workers` is that number."""

    NOT_HERE: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("initializer", "initargs", "mp_context"), "takes a Python object, which a configuration in YAML cannot hold"
    )
    max_workers: int

    def status(self) -> dict[str, Any]:
        outstanding = self._outstanding()
        return {
            "total_cores": os.cpu_count(),
            "total_mem": available_memory(),
            "total_core_hrs": 0,
            "total_workers": self.max_workers,
            "pending_tasks": max(0, outstanding - self.max_workers),
            "outstanding_tasks": outstanding,
            "scaling_enabled": False,
            "max_blocks": 1,
            "min_blocks": 1,
            "max_workers_per_node": self.max_workers,
            "nodes_per_block": 1,
            "engine_type": self.name,
        }

    @abstractmethod
    def _outstanding(self) -> int:
        """Counts the tasks that have no answer yet; in any thread."""

    def _count(self, option: str, default: int) -> int:
        number: int = self._options.get(option, default)
        if number < 1:
            raise ConfigError(f"{self.name}.{option}: expected at least 1, got {number}")
        return number

    def _refuse_resources(self, task: TaskRequest) -> None:
        if task.resource_specification:
            raise ValueError(f"resource_specification is not supported on {self.name}; MPI needs GlobusMPIEngine")


def available_memory() -> float:
    """Returns the GiB that programs could still take on this machine."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0.0
    return round(kib / 2**20, 1)
