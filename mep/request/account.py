"""`Account`: a local account, as the name service tells it. Made by `accounts.look_up`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
