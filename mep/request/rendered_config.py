"""`RenderedConfig`: what `renderer` makes of the admin's template and the user's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class SealedFile(Protocol):
    """A file in memory that nobody can change: `processes.sealed_file`."""

    @property
    def descriptor(self) -> int:
        """Open for as long as somebody refers to this object."""

    def read(self) -> bytes:
        """The whole content."""


@dataclass(frozen=True)
class RenderedConfig:
    """A user endpoint's configuration: YAML, in UTF-8, as the render child wrote it. Nobody of ours looks into it.

    A NUL, which is in no YAML, stands before what the user is to know of the options, if there is anything.
    """

    file: SealedFile

    def read(self) -> str:
        """The text, for who must put it into another one."""
        return self._parts()[0]

    def warning(self) -> str:
        """Sentences for the user, as the render child wrote them; empty: none."""
        return self._parts()[2]

    def _parts(self) -> tuple[str, str, str]:
        return self.file.read().decode("utf-8", "replace").partition("\0")
