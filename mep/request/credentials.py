"""`Credentials`: the AMQP credentials of a user endpoint, which the monitor holds and passes on, and never reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class Unread(Protocol):
    """A sealed file in memory: `processes.sealed_file`."""

    descriptor: int

    @property
    def size(self) -> int:
        """Bytes of the content."""

    def read(self) -> bytes:
        """The content, for whom it is meant."""

    def close(self) -> None:
        """Gives it up."""


@dataclass(frozen=True)
class Credentials:
    """The credentials of one start command.

    file: an `amqp_creds` object as JSON; or what a user endpoint reads from its credential file, encrypted (Fernet).
    key: the key of that; empty when the content is plain.
    """

    file: Unread = field(repr=False)
    key: str = field(default="", repr=False)
