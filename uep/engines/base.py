"""Says what an engine is: it takes task requests and gives futures of packed results.

`registry` makes the one engine of an endpoint. The endpoint calls `start` once, in a thread that lives as long as the
process (some engines' helpers die with the thread that started them), `submit` for every task, in the loop's thread,
`status` for every heartbeat, in another thread, and `stop` once.

An engine implements `_launch`; this class keeps what all share: the options of tasks, and trying again when the
machinery, not the task, failed. A task's own exception is a result like any other (`uep.workers.execution`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from uep import error_results
from uep.config import ConfigError, unknown
from uep.engines.later import Later
from uep.engines.options import Kinds, check
from uep.workers import execution

SHORT = 1.0
"""Seconds; an attempt that fails sooner has failed at once."""
FIRST_PAUSE = 0.1
"""Seconds before a task is tried again that has failed at once; each next pause is twice as long."""
LONGEST_PAUSE = 10.0
"""Seconds; no pause is longer."""
PAUSES = 60.0
"""Seconds of such pauses in a row, after which the task is answered, whatever number of retries is left."""


@dataclass(frozen=True, slots=True)
class EngineContext:
    """Where an engine works: for which endpoint, and in which directory it may keep files.

    high_assurance: what goes between endpoint and workers has to be encrypted, and `Engine.when_placed` is called.
    """

    endpoint_id: str
    directory: Path
    high_assurance: bool = False


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One task for an engine. `body` is the task message as it came."""

    task_id: str
    body: bytes
    resource_specification: Mapping[str, Any] = field(default_factory=dict)
    result_serializers: tuple[str, ...] = ()


@dataclass(slots=True)
class _Tried:
    """A task that is tried, perhaps again: since when, how it has failed, and the pauses since it last ran a while."""

    task: TaskRequest
    answer: Future[bytes] = field(default_factory=Future)
    failures: list[BaseException] = field(default_factory=list)
    begun: int = 0
    pause: float = 0.0
    paused: float = 0.0


class Engine(ABC):
    """See the module. `failure` is set once the engine can run nothing any more; the endpoint then stops.

    when_placed: is called in any thread with a task, its block and its batch job, once it is on a node, at endpoints
    with high assurance and by engines that have blocks.
    """

    OPTIONS: ClassVar[Mapping[str, Kinds]] = {
        "label": str,
        "working_dir": str,
        "max_retries_on_system_failure": int,
        "allowed_serializers": list,
        "run_in_sandbox": bool,
    }
    """Options that every engine takes, with the types of their values."""
    TAKES_OTHERS: ClassVar[bool] = False
    """Whether there are more options, which `start` checks."""
    NOT_HERE: ClassVar[Mapping[str, str]] = {}
    """Options of the public package that cannot be set like this, with what to do instead."""

    def __init__(self, context: EngineContext, options: Mapping[str, Any]) -> None:
        """Checks `options`.

        Raises:
            ConfigError: an option that does not exist, or has the wrong type.
        """
        self.context = context
        self.failure: str | None = None
        self.when_placed: Callable[[str, str, str], None] = lambda task_id, block, job: None
        self._options = self._checked(options)
        self._environment: Path | None = None
        self._retries: int = options.get("max_retries_on_system_failure", 0)
        self._later = Later()

    @property
    def trouble(self) -> str:
        """Says, for the admin, from what no task gets anything now; empty when there is no such thing."""
        return ""

    @property
    def jobs(self) -> list[str]:
        """Lists its blocks that live, by the ids of their batch jobs; of an engine without blocks there are none."""
        return []

    @property
    def name(self) -> str:
        """Names the engine as configuration and heartbeats do."""
        return type(self).__name__

    @property
    def python_problem(self) -> str:
        """Says why tasks of this engine cannot have a Python that is made for them; empty when they can."""
        return ""

    def use_environment(self, environment: Path) -> None:
        """Has tasks run by the Python of this environment; before `start`, unless there is a `python_problem`."""
        self._environment = environment

    @abstractmethod
    def start(self) -> None:
        """Gets ready for tasks; may take seconds.

        Raises:
            ConfigError: the configuration cannot be used.
            Exception: whatever else went wrong.
        """

    def check(self) -> list[str]:
        """Tries what `start` may refuse, and starts nothing; for `uep.check`. Returns what an admin should know.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        self._check_serializers()
        return []

    def job_script(self) -> str:
        """Shows what would be submitted to a batch system; empty when there is none. After `check` only."""
        return ""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Collects the figures for a heartbeat; also before `start`, and in any thread. May wait."""

    @abstractmethod
    def stop(self) -> None:
        """Ends everything that `start` began, running tasks too; may take seconds."""

    def submit(self, task: TaskRequest) -> Future[bytes]:
        """Runs the task; the future always ends with a packed result, never with an exception."""
        tried = _Tried(task)
        self._attempt(tried)
        return tried.answer

    @abstractmethod
    def _launch(self, task: TaskRequest) -> Future[bytes]:
        """Tries the task once. The future fails when the machinery did.

        Raises:
            Exception: the task cannot be tried.
        """

    def task_options(self, task: TaskRequest) -> dict[str, Any]:
        """Makes the keyword arguments of `uep.workers.execution.execute_task` for this task."""
        return {
            "run_dir": str(self.context.directory / self._options.get("working_dir", "tasks_working_dir")),
            "run_in_sandbox": self._options.get("run_in_sandbox", False),
            "task_deserializers": self._options.get("allowed_serializers"),
            "result_serializers": list(task.result_serializers),
        }

    def _check_serializers(self) -> None:
        """Checks the names of allowed serializers, for `start`: a wrong name would fail every task.

        Raises:
            ConfigError: there is no such serializer.
        """
        if allowed := self._options.get("allowed_serializers"):
            try:
                execution.check_deserializers(allowed)
            except Exception as e:
                raise ConfigError(f"{self.name}.allowed_serializers: {e}") from e

    def _is_final(self, error: BaseException) -> bool:
        """Tells whether `_launch` has refused the task for good: it would do so each time."""
        return isinstance(error, (ValueError, TypeError))

    def _attempt(self, tried: _Tried) -> None:
        tried.begun = time.time_ns()
        started = time.monotonic()
        try:
            attempt = self._launch(tried.task)
        except Exception as e:  # noqa: BLE001 - whatever it is, the task must be answered
            self._failed(tried, started, e, is_final=self._is_final(e))
        else:
            attempt.add_done_callback(lambda done: self._attempted(tried, started, done))

    def _attempted(self, tried: _Tried, started: float, done: Future[bytes]) -> None:
        error = done.exception()
        if error is None:
            tried.answer.set_result(done.result())
        else:
            self._failed(tried, started, error)

    def _failed(self, tried: _Tried, started: float, error: BaseException, *, is_final: bool = False) -> None:
        """Tries again, after a pause when the attempt failed at once; not here, where that would be a recursion."""
        tried.failures.append(error)
        is_last = is_final or self.failure is not None or len(tried.failures) > self._retries
        if time.monotonic() - started >= SHORT:
            tried.pause = tried.paused = 0.0
        else:
            tried.pause = min(LONGEST_PAUSE, 2 * tried.pause or FIRST_PAUSE)
            tried.paused += tried.pause
        if is_last or tried.paused > PAUSES:
            tried.answer.set_result(error_results.system_failure(tried.task.task_id, tried.begun, tried.failures))
        else:
            self._later.call(tried.pause, lambda: self._attempt(tried))

    def _checked(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        known = {**Engine.OPTIONS, **self.OPTIONS}
        for key, value in options.items():
            if key in self.NOT_HERE:
                raise ConfigError(f"{self.name}.{key}: {self.NOT_HERE[key]}")
            if key in known:
                check(f"{self.name}.{key}", value, known[key])
            elif not self.TAKES_OTHERS:
                raise ConfigError(f"{self.name}: {unknown('option', key, known)}")
        return options
