"""A mapping program of the site, between who wants it asked (`mapper`) and who runs it (the monitor)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

POSIX_CONNECTOR = "145812c8-decc-41f1-83cf-bb2a85a2a70b"
"""The connector id that mapping programs are told: local accounts."""


def command_line(argv: Sequence[str], endpoint_id: str) -> tuple[str, ...]:
    """The whole command of a program that a document names. endpoint_id: the manager's."""
    return (*argv, "-c", POSIX_CONNECTOR, "-s", endpoint_id, "-a")


class ProgramFailed(Exception):
    """A mapping program gave no answer; it may be asked again. The text is for the log: printable and short."""


class RunProgram(Protocol):
    """Has one program run, under limits, by whoever may: never by who wants it asked."""

    def __call__(self, number: int, question: bytes, /) -> Awaitable[bytes]:
        """The standard output of a program that ended well.

        number: which of the programs that the documents name, in their order, from 0 on.

        Raises:
            ProgramFailed: not to be trusted, not startable, failed, too slow, or too much output.
        """
