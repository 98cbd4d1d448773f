"""`RenderedConfig`: what `renderer` makes of the admin's template and the user's options."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderedConfig:
    """A user endpoint's configuration, as YAML text."""

    text: str
