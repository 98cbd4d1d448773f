"""What the endpoint tells the manager of its work, for `mep ps`: tasks, engine, blocks and batch jobs.

`endpoint` tells it on the report pipe, whenever it has changed. It is for people; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PERIOD = 2.0
"""Seconds between two looks whether there is something to tell."""
ENGINE_PERIOD = 10.0
"""Seconds between two questions to the engine while tasks are there; without tasks its last heartbeat's will do."""
AGAIN = 30.0
"""Seconds after which it is told again, though nothing has changed: to a manager that has just begun."""
MOST_JOBS = 20
_MOST_NAME = 50


def figures(
    engine: Mapping[str, Any], jobs: Sequence[str], received: int, forwarded: int, idle_since: float | None
) -> dict[str, Any]:
    """Puts together what is told.

    engine: its figures as in a heartbeat. jobs: its batch jobs. received, forwarded: tasks that have come, and results
    that have gone, since the start. idle_since: seconds of the wall clock; None while there are tasks.
    """
    here = max(0, received - forwarded)
    waiting = min(here, engine.get("pending_tasks") or 0)
    return {
        "engine": str(engine.get("engine_type"))[:_MOST_NAME],
        "provider": None if engine.get("provider_type") is None else str(engine["provider_type"])[:_MOST_NAME],
        "waiting": waiting,
        "running": here - waiting,
        "done": forwarded,
        "workers": engine.get("total_workers"),
        "blocks": len(jobs) if engine.get("provider_type") else None,
        "max_blocks": engine.get("max_blocks") if engine.get("provider_type") else None,
        "batch_jobs": [job[:_MOST_NAME] for job in jobs[:MOST_JOBS]],
        "idle_since": None if idle_since is None else round(idle_since),
    }
