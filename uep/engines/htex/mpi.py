"""GlobusMPIEngine: runs MPI programs that share a batch job, over Parsl's MPIExecutor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from uep.engines.base import TaskRequest
from uep.engines.htex.engine import GlobusComputeEngine


class GlobusMPIEngine(GlobusComputeEngine):
    """For tasks that are MPI programs: they say with a resource specification how many nodes and ranks they need."""

    PREFETCHES = False
    NOT_HERE: ClassVar[Mapping[str, str]] = {"executor": GlobusComputeEngine.NOT_HERE["executor"]}

    def _executor_class(self) -> Any:
        from parsl.executors.high_throughput.mpi_executor import MPIExecutor

        return MPIExecutor

    def _resources(self, task: TaskRequest) -> dict[str, Any]:
        from parsl.executors.errors import InvalidResourceSpecification

        given = {"num_nodes": None, **task.resource_specification}
        for name in ("num_nodes", "num_ranks", "ranks_per_node"):
            if name in given and (type(given[name]) is not int or given[name] < 1):
                raise InvalidResourceSpecification({name}, f"It must be a whole number, got {given[name]!r}")
        provider, nodes = self._executor.provider, given["num_nodes"]
        # Inside of a batch job that somebody else has started only the worker pool knows the nodes.
        if type(provider).__name__ != "LocalProvider" and nodes > provider.nodes_per_block:
            text = f"{nodes} nodes, but a block has {provider.nodes_per_block}"
            raise InvalidResourceSpecification({"num_nodes"}, text)
        given.setdefault("ranks_per_node", math.ceil(given.get("num_ranks", nodes) / nodes))
        return super()._resources(replace(task, resource_specification=given))
