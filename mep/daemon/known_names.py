"""Names in `accounts` of config.yaml that the name service does not know: a typo there locks out, or lets in.
And shells that lock out.

For `mep check`, and for a reload, where it runs in a forked child. Waits for the name service. A start does not ask:
the name service may come up later than the manager.
"""

from __future__ import annotations

from mep.accounts import look_up, shells
from mep.profile.sections.accounts import AccountPolicy
from mep.request.account import ShellFault

_UNLESS = ", unless `accounts.allow_nologin` is set"
_FAULTS = {
    ShellFault.UNLISTED: f"which is not in {shells.LISTS[0]}",
    ShellFault.UNUSABLE: "which cannot be executed",
}


def problems(policy: AccountPolicy) -> list[str]:
    """What keeps everybody out."""
    found = []
    if unknown := _unknown_groups(policy.deny_groups):
        found.append(f"accounts.deny_groups: {_no('group', unknown)}: nobody is admitted until that is mended")
    for key, names, unknown in _allowed(policy):
        if names and len(unknown) == len(names):
            found.append(f"accounts.{key}: {_no(key[6:-1], unknown)}: nobody is admitted")
    return found


def notes(policy: AccountPolicy) -> list[str]:
    """What keeps some out, or does not keep out who was meant."""
    found = [
        f"accounts.{key}: {_no(key[6:-1], unknown)}; is it misspelt?"
        for key, names, unknown in _allowed(policy)
        if unknown and len(unknown) < len(names)
    ]
    if unknown := _unknown_users(policy.deny_users):
        found.append(f"accounts.deny_users: {_no('user', unknown)}; if it is misspelt, the one that was meant gets in")
    return found if policy.allow_nologin else [*found, *_shells(policy.allow_users or ())]


def _shells(allowed: tuple[str, ...]) -> list[str]:
    """Who is meant to get in and is kept out by the shell, as far as names are named."""
    found = []
    if shells.listed() == shells.WITHOUT_LIST:
        only = " and ".join(sorted(shells.WITHOUT_LIST))
        found.append(f"there are no login shells in {shells.LISTS[0]}: only accounts with {only} are admitted{_UNLESS}")
    for account in filter(None, map(look_up.account, allowed)):
        if account.shell_fault is not None:
            why = f"has the shell {account.shell!r}, {_FAULTS[account.shell_fault]}"
            found.append(f"accounts.allow_users: {account.name!r} {why}: not admitted{_UNLESS}")
    return found


def _allowed(policy: AccountPolicy) -> list[tuple[str, tuple[str, ...], list[str]]]:
    users, groups = policy.allow_users or (), policy.allow_groups or ()
    return [("allow_users", users, _unknown_users(users)), ("allow_groups", groups, _unknown_groups(groups))]


def _unknown_users(names: tuple[str, ...]) -> list[str]:
    """Names count exactly: an account that the name service has under another spelling is not meant."""
    return [name for name in names if (found := look_up.account(name)) is None or found.name != name]


def _unknown_groups(names: tuple[str, ...]) -> list[str]:
    return [name for name, number in look_up.group_ids(names).items() if number is None]


def _no(kind: str, names: list[str]) -> str:
    return f"the name service knows no {kind} {', '.join(map(repr, names))}"
