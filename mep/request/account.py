"""`Account`: a local account, as the name service tells it. Made by `accounts.look_up`. And the form of its name."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")


class ShellFault(str, enum.Enum):
    """Why nobody logs in with a shell."""

    UNLISTED = "unlisted"
    """It is not in /etc/shells."""
    UNUSABLE = "unusable"
    """It cannot be executed, or is not there."""


@dataclass(frozen=True)
class Account:
    """A local account. `groups` are all its groups, the primary one included; shell_fault: None for a login shell."""

    name: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str
    groups: tuple[int, ...]
    shell_fault: ShellFault | None = None


def is_name(text: str) -> bool:
    """Whether an identity may become an account of that name. `identity.account_name` has the rule and its reasons, and
    decides by it; this is for whoever reads what was decided, and loads nothing that decides."""
    return _NAME.fullmatch(text) is not None and text != "root"
