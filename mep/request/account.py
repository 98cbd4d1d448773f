"""`Account`: a local account, as the name service tells it. Made by `accounts.look_up`."""

from __future__ import annotations

from dataclasses import dataclass


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
