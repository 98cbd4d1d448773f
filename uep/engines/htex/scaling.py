"""Keeps the number of Parsl blocks (batch jobs) as provider and strategy say.

Parsl's own poller looks every `strategy_period` seconds and not before: the first block and every task that finds no
block would wait for it. This one looks at once when it starts, when a task comes while there is no block, and when a
task is lost, perhaps with its block. What has become of the blocks, and when there is no hope for the tasks, is known
to `blocks`; Parsl's strategy only decides how many there should be.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from uep.config import ConfigError, unknown
from uep.engines.htex import commands
from uep.engines.htex.pauses import Patience
from uep.engines.options import check

log = logging.getLogger(__name__)

STOP_TIME = 10.0
"""Seconds for the round that is under way when scaling stops."""

_DEFAULTS = {"strategy": "simple", "max_idletime": 120.0, "strategy_period": 5.0}
_OLD_TYPES: Mapping[str, str] = {"SimpleStrategy": "simple"}
"""What the types of older configurations, whose `strategy` is a mapping, are called now."""


def make_strategy(name: str | None, max_idletime: float) -> Any:
    """Makes Parsl's strategy of that name. Raises ConfigError: there is none."""
    from parsl.jobs.strategy import Strategy

    try:
        return Strategy(strategy=name or "none", max_idletime=max_idletime)
    except KeyError:
        raise ConfigError(f"strategy: {name!r} is not one of none, simple, htex_auto_scale") from None


class Scaling:
    """A thread that scales `executor`. `strategy` is one of Parsl's names; times are in seconds."""

    def __init__(
        self,
        executor: Any,
        patience: Patience,
        give_up: Callable[[Exception], None],
        *,
        strategy: str | None,
        max_idletime: float,
        strategy_period: float,
    ) -> None:
        from uep.engines.htex.blocks import Blocks

        self._strategy = make_strategy(strategy, max_idletime)
        is_fixed = strategy in (None, "none")
        self.blocks = Blocks(executor, patience, give_up, is_fixed=is_fixed, period=strategy_period)
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
        if not self.blocks.living():
            self._wake.set()

    def task_was_lost(self) -> None:
        """Asks soon what has become of the blocks; the batch system is otherwise asked once a minute."""
        self.blocks.look_soon()
        self._wake.set()

    def stop(self) -> None:
        """Ends every block, also when the interchange, which Parsl would ask about them first, is gone."""
        self._stopped = self.blocks.is_stopping = True
        self._wake.set()
        commands.end_questions()
        self._thread.join(STOP_TIME)
        self.blocks.cancel_all()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._look()
            except Exception:
                if not self._stopped:
                    log.exception("scaling failed; trying again")
            self._wake.wait(self._period)
            self._wake.clear()

    def _look(self) -> None:
        if not self._executor.bad_state_is_set:
            self.blocks.look()
        if not self._executor.bad_state_is_set and not self._stopped:
            self._strategy.strategize([self._executor])


def strategy_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the arguments of `Scaling` out of the engine's `options`.

    Raises:
        ConfigError: an unknown name, or a value of the wrong type.
    """
    given = {key: value for key, value in options.get("job_status_kwargs", {}).items() if value is not None}
    strategy = options.get("strategy")
    if isinstance(strategy, dict):
        given = _of_old_strategy(strategy) | given
    elif strategy is not None:
        given.setdefault("strategy", strategy)
    for key, value in given.items():
        if key not in _DEFAULTS:
            raise ConfigError(f"job_status_kwargs: {unknown('option', key, _DEFAULTS)}")
        check(f"job_status_kwargs.{key}", value, str if key == "strategy" else (int, float))
    return {**_DEFAULTS, **given}


def _of_old_strategy(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Translates the mapping that `strategy` once was into words of `job_status_kwargs`."""
    if strategy.get("type") not in _OLD_TYPES:
        raise ConfigError(f"strategy: {unknown('type', strategy.get('type'), _OLD_TYPES)}")
    rest = {key: value for key, value in strategy.items() if key != "type" and value is not None}
    return {"strategy": _OLD_TYPES[strategy["type"]], **rest}
