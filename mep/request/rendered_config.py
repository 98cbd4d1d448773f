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
    """A user endpoint's configuration: YAML, in UTF-8, as the render child wrote it. Nobody of ours looks into it."""

    file: SealedFile

    def read(self) -> str:
        """The text, for who must put it into another one."""
        return self.file.read().decode("utf-8", "replace")
