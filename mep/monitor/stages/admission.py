"""May this account have a user endpoint? Root and the manager's own account never; the rest by the site's policy.

Pure: the ids of the groups that the policy names are looked up by the caller. How many user endpoints an account may
have is decided in `limits`, and whether it has to wait, in `breaker`. The rules on root are stated again in
`mep.privileged.spec`, which does not trust this module; and what is decided by groups, in the child
(`mep.privileged.become`), which does not trust the ids that came here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from identity import account_name
from mep.privileged import kernel
from mep.profile.sections.accounts import AccountPolicy
from mep.request.account import Account, ShellFault
from mep.request.group_rule import GroupRule
from mep.request.refusal import Refused

_NO_LOGIN = ("nologin", "false")
"""Programs that say: nobody works under this account. Some systems have them in /etc/shells."""
_SHELL_FAULTS = {
    ShellFault.UNLISTED: "is not a login shell of this system (/etc/shells)",
    ShellFault.UNUSABLE: "cannot be executed",
}
NO_GROUPS: Mapping[str, int | None] = MappingProxyType({})


def admit(account: Account, policy: AccountPolicy, group_ids: Mapping[str, int | None] | None = NO_GROUPS) -> None:
    """Returns if `account` may have a user endpoint.

    group_ids: the id of each of `policy.group_names()`; None for one that the name service does not know. None
        instead of all: nothing is decided by groups.

    Raises:
        Refused: stage `admission`.
        KeyError: `group_ids` lacks a name.
    """
    if not kernel.is_root():
        _admit_own(account)
        return
    reason = _never(account) or _unfit(account, policy) or _by_name(account, policy)
    for_sure = True
    if not reason and group_ids is not None:
        ids = {name: group_ids[name] for name in policy.group_names()}
        reason = group_rule(policy).objection({account.gid, *account.groups}, ids)
        for_sure = None not in ids.values()  # else a slip of the pen, or half an answer, would end everybody's work
    if not reason:
        reason = _by_shell(account, policy)
        for_sure = account.shell_fault is not ShellFault.UNUSABLE  # the disk that it lies on may come back
    if reason:
        raise Refused(
            "admission",
            f"account {account.name!r} (uid {account.uid}) may not have user endpoints: {reason}",
            "Your identity is mapped to a local account that may not run tasks on this system. If it should, "
            "please ask the system's administrators.",
            ends_right=for_sure,
        )


def _admit_own(account: Account) -> None:
    """Of an ordinary user's manager, which has no policy: it can start its own account, and no other."""
    if account.uid != os.getuid():
        raise Refused(
            "admission",
            f"account {account.name!r} (uid {account.uid}) is another than this manager's, which is not root",
            "This endpoint is its owner's alone.",
            ends_right=True,
        )


def group_rule(policy: AccountPolicy) -> GroupRule:
    """What is decided by groups; for the child, which decides it once more."""
    return GroupRule(policy.deny_groups, policy.allow_groups)


def mapped_elsewhere(endpoint: str, account: str, now: str) -> Refused:
    """Makes the refusal of a requester who maps to `now`, while the user endpoint runs as `account`."""
    return Refused(
        "account",
        f"{endpoint} runs as {account!r}, but the requester maps to {now!r}",
        "Your mapping to a local account on this system has changed. Please submit again.",
        ends_right=True,
    )


def _never(account: Account) -> str | None:
    if account.uid == 0 or account.gid == 0 or 0 in account.groups:
        return "it is root, or a member of root's group"
    if account.uid == os.getuid():
        return "it is the manager's own account"
    return None


def _unfit(account: Account, policy: AccountPolicy) -> str | None:
    if wrong := account_name.problem(account.name, directory_names=policy.directory_names):
        return f"{wrong} {_key('directory_names')}"
    if account.uid < policy.min_uid:
        return f"its uid is below {policy.min_uid} {_key('min_uid')}"
    return None


def _by_shell(account: Account, policy: AccountPolicy) -> str | None:
    if account.shell.rpartition("/")[2] in _NO_LOGIN:
        why = "forbids login"
    elif account.shell_fault is not None:
        why = _SHELL_FAULTS[account.shell_fault]
    else:
        return None
    return None if policy.allow_nologin else f"its shell {account.shell or '/bin/sh'} {why} {_key('allow_nologin')}"


def _by_name(account: Account, policy: AccountPolicy) -> str | None:
    if account.name.lower() in {name.lower() for name in policy.deny_users}:  # some directories know no case
        return f"it is denied by name {_key('deny_users')}"
    if policy.allow_users is not None and account.name not in policy.allow_users:
        return f"it is not among the accounts that are allowed {_key('allow_users')}"
    return None


def _key(name: str) -> str:
    return f"(key accounts.{name} of config.yaml)"
