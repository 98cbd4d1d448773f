"""What setting up has found and done: a `Step` for each thing that is to be there, or is not to be there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class SetupFailed(Exception):
    """Something could not be set up; the text says what, and what was said about it."""


class Found(Enum):
    """How a thing was found, and with it what was done about it."""

    RIGHT = "ok"
    DUE = "done"
    """It was not there, or was as an older version had left it. With a dry run it still is."""
    EDITED = "kept"
    """An admin has made it another; it is left alone."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing, and for what was kept how to have ours instead."""

    found: Found
    what: str
    remedy: str = ""

    def line(self, *, dry: bool) -> str:
        """Returns what is said about it; nothing is done in a `dry` run."""
        word = "to do" if dry and self.found is Found.DUE else self.found.value
        return f"{word:<6}{self.what}" + (f"; {self.remedy}" if self.remedy else "")


def right_or_due(what: str, *, right: bool) -> Step:
    """Makes the step of a thing that no admin has reason to edit."""
    return Step(Found.RIGHT if right else Found.DUE, what)
