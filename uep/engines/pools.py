"""What the two pools on this machine have in common: the figures of their heartbeats, and what they refuse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from uep.config import ConfigError
from uep.engines.base import Engine, Job


class PoolEngine(Engine):
    """A fixed number of workers on this machine. `max_workers` is that number."""

    max_workers: int

    def status(self) -> dict[str, Any]:
        return {
            "total_cores": os.cpu_count(),
            "total_mem": available_memory(),
            "total_core_hrs": 0,
            "total_workers": self.max_workers,
            "pending_tasks": 0,
            "outstanding_tasks": 0,
            "scaling_enabled": False,
            "max_blocks": 1,
            "min_blocks": 1,
            "max_workers_per_node": self.max_workers,
            "nodes_per_block": 1,
            "engine_type": self.name,
        }

    def _count(self, default: int) -> int:
        workers = self._options.get("max_workers", default)
        if workers < 1:
            raise ConfigError(f"{self.name}.max_workers: expected at least 1, got {workers}")
        return int(workers)

    def _refuse_resources(self, job: Job) -> None:
        if job.resource_specification:
            raise ValueError(f"resource_specification is not supported on {self.name}; MPI needs GlobusMPIEngine")


def available_memory() -> float:
    """GiB that programs could still take on this machine."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0.0
    return round(kib / 2**20, 1)
