"""`MappingDocuments`: the identity mapping of a profile as text that is known to be in order.

`reader.files` reads and checks it; `mapper` parses it and decides by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = "tuple[int, int, int, int] | None"
"""What changes when a file does: inode, times of change (ns), size (bytes). None while the file is not there."""
NEVER_SEEN: Stamp = (0, 0, 0, 0)
"""The stamp of no file."""


@dataclass(frozen=True)
class MappingHint:
    """What is legal in a document but probably not meant: where, what, and what to do instead."""

    where: str
    text: str
    suggestion: str


@dataclass(frozen=True)
class MappingProgram:
    """A program that a document names. run_as: the account that it runs as; None for `mapping_account`."""

    argv: tuple[str, ...]
    run_as: str | None = None


@dataclass(frozen=True)
class MappingDocuments:
    """The documents of one file. digest: SHA-256 of the text, for the log and the audit trail.

    programs: those that the documents name, in their order. Who wants one to be run says its number, from 0 on.
    directory_names: whether they may give names as only directories have them; set by `Profile.documents`.
    """

    path: Path
    text: str = field(repr=False)
    digest: str
    hints: tuple[MappingHint, ...] = ()
    programs: tuple[MappingProgram, ...] = ()
    directory_names: bool = False
