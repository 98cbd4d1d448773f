"""`AccountPolicy`: the key `accounts` of config.yaml. `monitor.requests.admission` decides by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AccountPolicy:
    """The key `accounts` of config.yaml. The lists are those of sshd_config(5): each that is set must be passed.

    min_uid: accounts below are system accounts.
    allow_nologin: whether accounts whose shell forbids login may have user endpoints.
    allow_users, allow_groups: names of the only accounts, and groups of the only accounts, that may; None: not set.
    deny_users, deny_groups: names of accounts, and groups of accounts, that may not, whatever else says yes.
    """

    min_uid: int = 1000
    allow_nologin: bool = False
    allow_users: tuple[str, ...] | None = None
    deny_users: tuple[str, ...] = ()
    allow_groups: tuple[str, ...] | None = None
    deny_groups: tuple[str, ...] = ()

    def group_names(self) -> tuple[str, ...]:
        """The groups whose ids `admit` needs; each once."""
        return tuple(dict.fromkeys((*self.deny_groups, *(self.allow_groups or ()))))
