"""Keeps the number of Parsl blocks (batch jobs) as provider and strategy say.

Parsl's own poller looks every `strategy_period` seconds and not before: the first block and every task that finds no
block would wait for it. This one looks at once when it starts, and when a task comes while there is no block.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from uep.config import ConfigError

log = logging.getLogger(__name__)

STOP_TIME = 10.0
"""Seconds for the round that is under way when scaling stops."""


class Scaling:
    """A thread that scales `executor`. `strategy` is one of Parsl's names; times are in seconds."""

    def __init__(self, executor: Any, *, strategy: str | None, max_idletime: float, strategy_period: float) -> None:
        from parsl.jobs.strategy import Strategy

        try:
            self._strategy = Strategy(strategy=strategy or "none", max_idletime=max_idletime)
        except KeyError:
            raise ConfigError(f"strategy: {strategy!r} is not one of none, simple, htex_auto_scale") from None
        self._executor = executor
        self._period = strategy_period
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="scaling", daemon=True)

    def start(self) -> None:
        """Asks for the first blocks, in its thread."""
        self._strategy.add_executors([self._executor])
        self._thread.start()

    def task_came(self) -> None:
        """Looks soon if the task has no block to go to; cheap."""
        if not any(not status.terminal for status in self._executor.status_facade.values()):
            self._wake.set()

    def stop(self) -> None:
        """Ends every block."""
        self._stopped = True
        self._wake.set()
        self._thread.join(STOP_TIME)
        blocks = len(self._executor.status_facade)
        if blocks and not self._executor.bad_state_is_set:
            self._executor.scale_in_facade(blocks)

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._look()
            except Exception:
                log.exception("scaling failed; trying again")
            self._wake.wait(self._period)
            self._wake.clear()

    def _look(self) -> None:
        if self._executor.status_polling_interval > 0:
            self._executor.poll_facade()
            self._executor.handle_errors(self._executor.status_facade)
        self._strategy.strategize([self._executor])
