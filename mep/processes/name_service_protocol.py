"""What the monitor and the name service helper say to each other. What the helper says is read as a stranger's.

                                                 is answered once, in any order, by
by being started  number 0                       READY
to the helper     ACCOUNT  n {name}              FOUND, MISSING or FAILED
                  GROUP    n {name}              GROUP_ID, MISSING or FAILED
from the helper   READY    0
                  FOUND    n {name, uid, gid, gecos, home, shell, shell_fault}, file: the ids of its groups
                  GROUP_ID n {id}
                  MISSING  n: there is none of that name
                  FAILED   n {reason}

DIALOGUE says the same; `answering` holds the helper to it.
"""

from __future__ import annotations

import array
import enum
from collections.abc import Mapping
from typing import Any

from mep.processes.message import START, Dialogue, Files
from mep.processes.printable import escaped
from mep.request.account import Account, ShellFault

MOST_NAME = 256
"""Characters of a name that is asked for, as many as LOGIN_NAME_MAX: nobody has a longer one."""
MOST_GROUPS = 4 * 65536
"""Bytes of the file of FOUND: an account can be a member of so many groups, and each id is an int of the machine."""
GROUP_IDS = "I"
"""How they are written (array)."""
_NO_ID = 2**32 - 1
"""To the kernel this is no id but the word "unchanged"."""


class ToNameService(enum.IntEnum):
    """Kinds of questions."""

    ACCOUNT = 1
    GROUP = 2


class FromNameService(enum.IntEnum):
    """Kinds of answers."""

    READY = 101
    FOUND = 102
    GROUP_ID = 103
    MISSING = 104
    FAILED = 105


_TEXTS = ("name", "gecos", "home", "shell", "shell_fault")
_MISSING_OR_FAILED: Mapping[int, Mapping[str, type]] = {
    FromNameService.MISSING: {},
    FromNameService.FAILED: {"reason": str},
}
DIALOGUE = Dialogue(
    module="mep.accounts.server",
    answers={
        START: {FromNameService.READY: {}},
        ToNameService.ACCOUNT: {
            FromNameService.FOUND: {"uid": int, "gid": int, **dict.fromkeys(_TEXTS, str)},
            **_MISSING_OR_FAILED,
        },
        ToNameService.GROUP: {FromNameService.GROUP_ID: {"id": int}, **_MISSING_OR_FAILED},
    },
    files={FromNameService.FOUND: [MOST_GROUPS]},
)


class LookUpFailed(Exception):
    """The helper could not look it up. The text is the helper's."""


def read(kind: int, body: Mapping[str, Any], files: Files) -> Account | int | LookUpFailed | None:
    """What was found: the account or the group's id, None for neither. Raises ValueError."""
    if kind == FromNameService.FOUND:
        return _account(body, files[0].read())
    if kind == FromNameService.GROUP_ID:
        return _id(body["id"])
    return LookUpFailed(escaped(body["reason"])) if kind == FromNameService.FAILED else None


def _account(body: Mapping[str, Any], packed: bytes) -> Account:
    if any("\0" in body[name] for name in _TEXTS):
        raise ValueError("a text has a NUL")
    groups = array.array(GROUP_IDS)
    groups.frombytes(packed)
    fault = ShellFault(body["shell_fault"]) if body["shell_fault"] else None
    ids = {"uid": _id(body["uid"]), "gid": _id(body["gid"]), "groups": tuple(sorted({body["gid"], *map(_id, groups)}))}
    return Account(**{**body, **ids, "shell_fault": fault})


def _id(value: int) -> int:
    if not 0 <= value < _NO_ID:
        raise ValueError("an id is out of range")
    return value
