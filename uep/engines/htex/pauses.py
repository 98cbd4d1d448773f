"""Decides when something that fails is tried again: after growing pauses, with few words in the log."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

log = logging.getLogger(__name__)

LONGEST = 600.0
"""Seconds; no pause is longer, unless one says otherwise."""
LOG_INTERVAL = 60.0
"""Seconds between two lines about the same trouble."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long tasks wait for what may never come, in seconds."""

    worker: float
    """For the first worker of a job, since the job runs."""
    submit: float
    """For a batch system that takes no jobs for the time being."""


class Pauses:
    """For one kind of thing to do, which `what` names. Tell what came of each try with `failed` and `worked`."""

    def __init__(self, what: str, first: float, longest: float = LONGEST) -> None:
        """`first` is the pause after the first failure, and no pause is longer than `longest`; in seconds."""
        self._what = what
        self._longest = longest
        self._first = first
        self._pause = 0.0
        self._next = 0.0
        self._logged = 0.0
        self._since: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether it may be tried now."""
        return time.monotonic() >= self._next

    @property
    def failing_for(self) -> float:
        """Seconds since the first failure in a row; 0 when the last try worked."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def failed(self, reason: str) -> None:
        """Begins a pause."""
        now = time.monotonic()
        self._pause = min(self._longest, 2 * self._pause if self._since is not None else self._first)
        self._next = now + self._pause
        if self._since is None or now >= self._logged + LOG_INTERVAL:
            log.warning("%s: %s; next attempt in %.0f s", self._what, reason, self._pause)
            self._logged = now
        self._since = now if self._since is None else self._since

    def worked(self) -> None:
        """Ends the trouble, if there was any."""
        if self._since is not None:
            log.warning("%s: works again, after %.0f s", self._what, self.failing_for)
        self._since, self._next = None, 0.0
