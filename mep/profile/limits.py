"""`Limits`: the key `limits` of config.yaml. `monitor.requests.quota` counts by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Numbers of user endpoints; None means no limit.

    max_ueps: of all users together. max_ueps_per_user: of one account. Both count those that run and those that are
    being started. starts_per_minute_per_user: starts of one account in any 60 seconds, whatever becomes of them.
    """

    max_ueps: int | None = None
    max_ueps_per_user: int | None = None
    starts_per_minute_per_user: int | None = None
