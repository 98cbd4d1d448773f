"""What the user endpoints of one account may use together: the key `resources` of config.yaml.

`config` reads it, `containment` has it enforced.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Limits; None means none.

    memory_max: bytes. tasks_max: processes and threads. cpu_quota: processors; 1.5 is one and a half.
    """

    memory_max: int | None = None
    tasks_max: int | None = None
    cpu_quota: float | None = None

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.memory_max, self.tasks_max, self.cpu_quota))
