"""Asks the system's name service (files, LDAP, SSSD: whatever it uses), and waits for its answer.

For `accounts.server`, which may wait, and for commands, which have nothing else to do. Never in an event loop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
from collections.abc import Iterable

from mep.accounts import shells
from mep.privileged.become import group_id
from mep.request.account import Account

_NO_SUCH = frozenset({0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM})
"""What getpwnam_r(3) may return when there is no such account or group; all else means that nobody knows."""
_ENTRY, _TEXTS = 256, 65536
"""Bytes, more than enough, of a `struct passwd` or `struct group`, and of its texts."""


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


def unanswered(function: str, name: str) -> str | None:
    """Why the name service could not say whether there is what was looked up in vain; None when there is none.

    Python's `pwd` and `grp` say the same of both. So who must not take an SSSD that is down for an account that is gone
    asks the C library once more. function: `getpwnam_r` or `getgrnam_r`.
    """
    entry, texts, found = ctypes.create_string_buffer(_ENTRY), ctypes.create_string_buffer(_TEXTS), ctypes.c_void_p()
    look = getattr(ctypes.CDLL(None), function)
    code = look(name.encode("utf-8", "replace"), entry, texts, ctypes.c_size_t(_TEXTS), ctypes.byref(found))
    return None if code in _NO_SUCH else os.strerror(code)


def group_ids(names: Iterable[str]) -> dict[str, int | None]:
    """The id of each group; None for a name that no group has."""
    return {name: group_id(name) for name in names}
