"""Asks the system's name service (files, LDAP, SSSD: whatever it uses), and waits for its answer.

For `accounts.server`, which may wait, and for commands, which have nothing else to do. Never in an event loop.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable

from mep.accounts import shells
from mep.privileged.become import group_id
from mep.request.account import Account


def account(username: str) -> Account | None:
    """What the name service answers when it is asked for `username`; the name in it may be another one.

    Raises:
        OSError: the list of login shells cannot be read.
    """
    try:
        entry = pwd.getpwnam(username)
    except (KeyError, ValueError):  # ValueError: NUL or a lone surrogate in the name
        return None
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        gecos=entry.pw_gecos,
        home=entry.pw_dir,
        shell=entry.pw_shell,
        groups=tuple(sorted({entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)})),
        shell_fault=shells.fault(entry.pw_shell),
    )


def group_ids(names: Iterable[str]) -> dict[str, int | None]:
    """The id of each group; None for a name that no group has."""
    return {name: group_id(name) for name in names}
