"""`AccountPolicy`: the key `accounts` of config.yaml. `monitor.stages.admission` decides by it."""

from __future__ import annotations

from dataclasses import dataclass

from mep.profile.keys import Takes, key


@dataclass(frozen=True)
class AccountPolicy:
    """Which accounts may have user endpoints. The lists are as in sshd_config(5): each that is set must be passed."""

    min_uid: int = key(1000, Takes.UID, "accounts below never get a user endpoint")
    allow_nologin: bool = key(
        False,
        Takes.FLAG,
        "whether accounts may whose shell forbids login, is not in /etc/shells, or cannot be executed",
    )
    directory_names: bool = key(
        False,
        Takes.FLAG,
        "whether accounts may whose names have capitals, a digit in front, `@`, or 33 to 255 characters; see below",
    )
    allow_users: tuple[str, ...] | None = key(
        None, Takes.ALLOWED_USERS, "the only accounts that may; see below", shown="everybody"
    )
    deny_users: tuple[str, ...] = key((), Takes.DENIED_USERS, "accounts that may not", shown="nobody")
    allow_groups: tuple[str, ...] | None = key(
        None, Takes.ALLOWED_GROUPS, "the groups of the only accounts that may", shown="everybody"
    )
    deny_groups: tuple[str, ...] = key((), Takes.DENIED_GROUPS, "groups of accounts that may not", shown="nobody")
    withdrawal_grace: float = key(
        0.0,
        Takes.GRACE_PERIOD,
        "seconds that user endpoints go on after their account or requester has lost the right to run",
    )

    def group_names(self) -> tuple[str, ...]:
        """The groups whose ids `admit` needs; each once."""
        return tuple(dict.fromkeys((*self.deny_groups, *(self.allow_groups or ()))))
