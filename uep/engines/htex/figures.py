"""Collects what heartbeats say about an executor of Parsl: workers, tasks, blocks and nodes.

The engine, whose name is `name`, calls `before_start` until its executor has started, then `of_executor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

COMMAND_TIME = 60.0
"""Seconds for the interchange to answer a question; Parsl asks it nothing more after one that it did not answer."""


def of_executor(name: str, executor: Any) -> dict[str, Any]:
    """Collects the figures of a running executor. Asks the interchange, and waits for its answers."""
    provider = executor.provider
    managers = executor.command_client.run("MANAGERS", timeout_s=COMMAND_TIME)
    packages = executor.command_client.run("MANAGERS_PACKAGES", timeout_s=COMMAND_TIME)
    running = sum(min(m["tasks"], m["worker_count"]) for m in managers)
    return {
        "managers": len(managers),
        "active_managers": sum(1 for m in managers if m["active"]),
        "total_workers": sum(m["worker_count"] for m in managers),
        "idle_workers": sum(max(0, m["worker_count"] - m["tasks"]) for m in managers),
        "pending_tasks": max(0, executor.outstanding() - running),
        "outstanding_tasks": executor.outstanding(),
        "total_tasks": executor._task_counter,
        "scaling_enabled": provider.max_blocks > 0,
        "mem_per_worker": executor.mem_per_worker,
        "cores_per_worker": executor.cores_per_worker,
        "prefetch_capacity": executor.prefetch_capacity,
        "max_blocks": provider.max_blocks,
        "min_blocks": provider.min_blocks,
        "max_workers_per_node": _finite(executor.max_workers_per_node),
        "nodes_per_block": provider.nodes_per_block,
        "node_info": _nodes(managers, packages, executor.blocks_to_job_id),
        "engine_type": name,
        "provider_type": type(provider).__name__,
        "queue": _first(provider, "queue", "partition"),
        "account": _first(provider, "account", "allocation", "project"),
    }


def before_start(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the same figures from the configuration alone: Parsl is not imported yet."""
    provider = options.get("provider", {"type": "LocalProvider"})
    return {
        **dict.fromkeys(("managers", "active_managers", "total_workers", "idle_workers"), 0),
        **dict.fromkeys(("pending_tasks", "outstanding_tasks", "total_tasks"), 0),
        "scaling_enabled": True,
        "mem_per_worker": options.get("mem_per_worker"),
        "cores_per_worker": options.get("cores_per_worker", 1.0),
        "prefetch_capacity": options.get("prefetch_capacity", 0),
        "max_blocks": provider.get("max_blocks", 1),
        "min_blocks": provider.get("min_blocks", 0),
        "max_workers_per_node": options.get("max_workers_per_node"),
        "nodes_per_block": provider.get("nodes_per_block", 1),
        "node_info": {},
        "engine_type": name,
        "provider_type": provider.get("type"),
        "queue": provider.get("queue") or provider.get("partition"),
        "account": provider.get("account") or provider.get("allocation") or provider.get("project"),
    }


def _nodes(
    managers: list[dict[str, Any]], packages: Mapping[str, Any], jobs: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Lists what runs in each batch job: by job id, a description for each node."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for manager in managers:
        installed = packages.get(manager["manager"], {})
        node = {
            "worker_count": manager["worker_count"],
            "idle_duration": manager["idle_duration"],
            "parsl_version": manager["parsl_version"],
            "endpoint_version": installed.get("globus-compute-endpoint"),
            "sdk_version": installed.get("globus-compute-sdk"),
            "python_version": manager["python_version"],
        }
        nodes.setdefault(str(jobs.get(manager["block_id"], manager["block_id"])), []).append(node)
    return nodes


def _first(provider: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(provider, name, None))), None)


def _finite(number: float) -> float | None:
    """Turns infinity, Parsl's word for no limit, into None: JSON has no infinity."""
    with contextlib.suppress(OverflowError):
        return int(number)
    return None
