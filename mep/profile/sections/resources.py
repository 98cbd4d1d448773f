"""`Resources`: the key `resources` of config.yaml. `monitor.containment` has it enforced."""

from __future__ import annotations

from dataclasses import dataclass

from mep.profile.keys import Takes, key


@dataclass(frozen=True)
class Resources:
    """What the user endpoints of one account may use together; None means no limit.

    memory_max: bytes. cpu_quota: processors; 1.5 is one and a half.
    """

    memory_max: int | None = key(
        None, Takes.MEMORY, "memory of the user endpoints of one account, for example `8G`", shown="no limit"
    )
    tasks_max: int | None = key(None, Takes.TASKS, "their processes and threads", shown="no limit")
    cpu_quota: float | None = key(None, Takes.CPU_QUOTA, "their processors: `150%`, or 1.5", shown="no limit")

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.memory_max, self.tasks_max, self.cpu_quota))
