"""Become one account for good, and prove it.

Called by `launch` in the child between fork and exec. The order is the only one that works: the bounding set and the
groups can be changed only while still root, and the uid goes last because with it goes the power to change the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from mep.privileged import kernel


class NotProven(Exception):
    """The ids or capabilities after the drop are not what they must be."""


def become(uid: int, gid: int, groups: tuple[int, ...], last_capability: int) -> None:
    """Gives up root for account `uid`, with exactly these groups, no capabilities, and no way to gain any.

    Raises:
        OSError: a step was refused by the kernel.
        NotProven: every step succeeded and yet the process is not what it must be.
    """
    kernel.clear_bounding_set(last_capability)
    os.setresgid(gid, gid, gid)
    os.setgroups(groups)
    os.setresuid(uid, uid, uid)
    kernel.clear_capabilities()
    kernel.set_no_new_privileges()
    prove(uid, gid, groups)


def prove(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Reads back every id and capability, and tries to become root again. Raises NotProven."""
    if os.getresuid() != (uid, uid, uid):
        raise NotProven("user ids")
    if os.getresgid() != (gid, gid, gid):
        raise NotProven("group ids")
    if set(os.getgroups()) != set(groups):
        raise NotProven("supplementary groups")
    state = kernel.capability_sets()
    if state.pop("NoNewPrivs") != 1 or len(state) != 5 or any(state.values()):
        raise NotProven("capabilities")
    for regain in (_regain_uid, _regain_effective_uid, _regain_gid):
        _must_fail(regain)


def _regain_uid() -> None:
    os.setuid(0)


def _regain_effective_uid() -> None:
    os.setresuid(-1, 0, -1)


def _regain_gid() -> None:
    os.setresgid(0, 0, 0)


def _must_fail(regain: Callable[[], None]) -> None:
    try:
        regain()
    except PermissionError:
        return
    raise NotProven("root can be regained")
