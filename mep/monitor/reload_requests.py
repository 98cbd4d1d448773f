"""Who waits for what a reload comes to: each is told of one that began after they had asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Told = Callable[[bool, str], None]
"""Told whether the edited profile is in force, and what else there is to say; why not, if it is not."""


class ReloadRequests:
    """Belongs to the event loop. reload: begins one; it takes the place of one that is under way (SIGHUP)."""

    def __init__(self, reload: Callable[[], None]) -> None:
        self._reload = reload
        self._now: list[Told] = []
        """Those whose reload is under way."""
        self._next: list[Told] = []

    def ask(self, told: Told) -> None:
        """Has the profile read again: at once, or when those who asked before have their answer."""
        if self._now:
            self._next.append(told)
            return
        self._now.append(told)
        self._reload()

    def tell(self, taken: bool, text: str) -> None:
        """Called with the outcome of each reload, whoever wanted it."""
        for told in self._now:
            told(taken, text)
        self._now, self._next = self._next, []
        if self._now:
            asyncio.get_running_loop().call_soon(self._again)

    def close(self) -> None:
        """Nobody is told any more, and nothing is begun."""
        self._now, self._next = [], []

    def _again(self) -> None:
        if self._now:
            self._reload()
