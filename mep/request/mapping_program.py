"""A mapping program of the site, between who wants it asked (`mapper.mapping`) and who runs it (the monitor)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ProgramFailed(Exception):
    """A mapping program gave no answer; it may be asked again. The text is for the log: printable and short."""


class RunProgram(Protocol):
    """Runs one program under limits: `monitor.stages.mapping_programs`."""

    async def __call__(self, argv: Sequence[str], stdin: bytes, account: str | None) -> bytes:
        """The standard output of a program that ended well; `argv` begins with its absolute path.

        account: the name of the account that it runs as, or None for the one that helpers run as.

        Raises:
            ProgramFailed: not to be trusted, not startable, failed, too slow, or too much output.
        """
