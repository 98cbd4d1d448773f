"""`Limits`: the key `limits` of config.yaml. `monitor.stages.quota` counts by it."""

from __future__ import annotations

from dataclasses import dataclass

from mep.profile.keys import Takes, key


@dataclass(frozen=True)
class Limits:
    """What the user endpoints of an account, or of all, may have; those that are being started are counted, too.

    None means no limit.
    """

    max_ueps: int | None = key(None, Takes.LIMIT, "user endpoints of all users together", shown="no limit")
    max_ueps_per_user: int | None = key(None, Takes.LIMIT, "user endpoints of one account", shown="no limit")
    starts_per_minute_per_user: int | None = key(
        None, Takes.LIMIT, "starts of one account in any 60 seconds, whatever becomes of them", shown="no limit"
    )
    audit_mib_per_hour_per_user: int | None = key(
        512,
        Takes.LIMIT,
        "MiB of the audit trail that the tasks of one account may fill in an hour, with `high_assurance`; who fills "
        "more is ended",
    )
