"""What the start of a manager hands to the manager, across an exec; and what that asks to have done anew.

Plain values, and the numbers of descriptors: written by `main`, read by `serve` and `anew`, all of them root.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mep import __version__
from mep.profile.profile import Profile
from mep.request.account import Account


@dataclass(frozen=True)
class HelperAccounts:
    """What runs as which, by the keys of config.yaml."""

    worker: Account
    render: Account
    name_service: Account
    mapping: Account


@dataclass(frozen=True)
class Folders:
    """Of this endpoint. run: below /run, in memory. kept: on disk, for what has to outlive a crash of the host.

    orders: on disk, what admins have ordered. state: on disk, of all endpoints.
    """

    run: Path
    kept: Path
    orders: Path
    state: Path


@dataclass(frozen=True)
class LogTo:
    """Where the log goes. form: `log_format` of config.yaml, size and keep `log_size` and `log_keep`. console: to
    standard error, too."""

    path: Path
    size: int
    keep: int
    debug: bool
    form: str
    console: bool


@dataclass(frozen=True)
class Handed:
    """All that a manager begins with.

    refused: what is wrong with the edited profile, when this is the one that was accepted last. accounts: those of the
    helpers. readers: the group whose members may ask how the manager is. lock: the descriptor that holds the run lock.
    addresses: of a sealed file with the broker's addresses. credentials: of one with client credentials that came from
    the environment; None when they are in a file, or the endpoint has a login.
    """

    profile: Profile
    refused: str
    endpoint_id: str
    folders: Folders
    accounts: HelperAccounts
    readers: int | None
    log: LogTo
    lock: int
    addresses: int
    credentials: int | None


@dataclass(frozen=True)
class ReadProfile:
    """The profile in a folder is to be read, and tried with a renderer of that account."""

    directory: Path
    render: Account


@dataclass(frozen=True)
class ReadMapping:
    """The mapping documents in a file are to be read."""

    path: Path


@dataclass(frozen=True)
class Register:
    """The endpoint is to be registered once more. The first file is for its addresses; the second one has client
    credentials, if they came from the environment (`given`).

    worker: the account that talks to the service.
    """

    profile: Profile
    worker: Account
    folders: Folders
    given: bool


@dataclass(frozen=True)
class Tried:
    """A profile that can be put in force, and what is worth knowing of it. version: of the program that has read it."""

    profile: Profile
    notes: tuple[str, ...]
    version: str = __version__
