"""From a user name to a local account, through the system's name service (files, LDAP, SSSD: whatever it uses)."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from mep.refusal import Refused


@dataclass(frozen=True)
class Account:
    """A local account. `groups` are all its groups, the primary one included."""

    name: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str
    groups: tuple[int, ...]


def find(username: str) -> Account:
    """The account called `username`.

    Raises:
        Refused: stage `account`; there is none of exactly that name.
    """
    try:
        entry = pwd.getpwnam(username)
    except (KeyError, ValueError):  # ValueError: NUL or a lone surrogate in the name
        raise Refused(
            "account",
            f"identity maps to account {username!r}, which does not exist on this system",
            "Your identity is mapped to a local account that does not exist on this system.",
        ) from None
    if entry.pw_name != username:
        raise Refused(
            "account",
            f"identity maps to account {username!r}, but the name service answers with {entry.pw_name!r}",
            "Your identity is mapped to a local account that does not exist on this system under that name.",
        )
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        gecos=entry.pw_gecos,
        home=entry.pw_dir,
        shell=entry.pw_shell,
        groups=tuple(sorted({entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)})),
    )
