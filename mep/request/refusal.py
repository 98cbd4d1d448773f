"""Why a request was not granted: one value, whatever the stage, for the two people who read it.

Any stage raises `Refused`; `pipeline` alone catches it, and `decisions` logs and audits it, and tells the user.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A request that ended at `stage`.

    reason_for_admin: what, where, why, what to do. May name files and accounts.
    reason_for_user: what the user can change. No local paths, no names of other users, no internals.
    ends_right: it says for sure that the requester, or the account, may not run anything here: what runs is ended, too.
        Not so for what passes by itself (no answer, a program that failed), nor for what is wrong with the request.
    """

    stage: str
    reason_for_admin: str
    reason_for_user: str
    ends_right: bool = False

    def on_record(self) -> dict[str, object]:
        """What the audit trail says of it."""
        return {"stage": self.stage, "reason": self.reason_for_admin}


class Refused(Exception):
    """Ends a request. Carries the `Refusal`."""

    def __init__(self, stage: str, admin: str, user: str, *, ends_right: bool = False) -> None:
        super().__init__(f"{stage}: {admin}")
        self.refusal = Refusal(stage, admin, user, ends_right)

    @classmethod
    def of(cls, refusal: Refusal) -> Refused:
        """Ends a request by a refusal that is there already."""
        return cls(refusal.stage, refusal.reason_for_admin, refusal.reason_for_user, ends_right=refusal.ends_right)


UNEXPECTED = Refusal(
    "manager",
    "unexpected error, see the log",
    "This endpoint failed unexpectedly; please tell its administrators.",
)
"""The refusal of a request that met a fault of ours."""
