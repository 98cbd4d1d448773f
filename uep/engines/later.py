"""Calls functions after a time, in one thread: for lost tasks that are tried again, of which there may be thousands."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Later:
    """The thread runs from the first call on, and dies with the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._runs = False

    def call(self, seconds: float, function: Callable[[], None]) -> None:
        """Has `function` called in `seconds`; in any thread."""
        with self._changed:
            heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._numbers), function))
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="later", daemon=True).start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            function = self._next()
            try:
                function()
            except Exception:
                log.exception("internal error")

    def _next(self) -> Callable[[], None]:
        """Waits for the next function whose time has come."""
        with self._changed:
            while True:
                if not self._waiting:
                    self._changed.wait()
                elif (left := self._waiting[0][0] - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    return heapq.heappop(self._waiting)[2]
