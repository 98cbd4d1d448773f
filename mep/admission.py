"""May this account have a user endpoint? Root and the manager's own account never; the rest by the site's policy.

The rules on root are stated again in `mep.privileged.spec`, which does not trust this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from mep.account import Account
from mep.refusal import Refused

NO_LOGIN = frozenset(
    f"{folder}/{name}" for folder in ("/bin", "/sbin", "/usr/bin", "/usr/sbin") for name in ("nologin", "false")
)
"""Login shells that say: nobody works under this account."""


@dataclass(frozen=True)
class AccountPolicy:
    """The key `accounts` of config.yaml.

    min_uid: accounts below are system accounts.
    allow_nologin: whether accounts whose shell forbids login may have user endpoints.
    """

    min_uid: int = 1000
    allow_nologin: bool = False


def admit(account: Account, policy: AccountPolicy) -> None:
    """Returns if `account` may have a user endpoint. Raises Refused (stage `admission`)."""
    reason = _objection(account, policy)
    if reason:
        raise Refused(
            "admission",
            f"account {account.name!r} (uid {account.uid}) may not have user endpoints: {reason}",
            "Your identity is mapped to a local account that may not run tasks on this system.",
        )


def _objection(account: Account, policy: AccountPolicy) -> str | None:
    if account.uid == 0 or account.gid == 0 or 0 in account.groups:
        return "it is root, or a member of root's group"
    if account.uid == os.getuid():
        return "it is the manager's own account"
    if account.uid < policy.min_uid:
        return f"its uid is below {policy.min_uid} (key accounts.min_uid of config.yaml)"
    if account.shell in NO_LOGIN and not policy.allow_nologin:
        return f"its shell {account.shell} forbids login (key accounts.allow_nologin of config.yaml)"
    return None
