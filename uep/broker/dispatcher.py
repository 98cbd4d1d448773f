"""Takes accepted tasks from the inbox to the engine, and their results back.

`inbox` calls `submit` in the loop's thread, once for each task. What the site does not allow, or cannot be read, is
answered here with an error result; everything else is the engine's.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

from uep import error_results, pinned
from uep.audit import Audit
from uep.engines.base import Engine, TaskRequest
from wire.consumer import Delivery

log = logging.getLogger(__name__)


class Dispatcher:
    """Runs tasks on `engine`; with `allowed_functions` only those functions.

    pinned_functions: the SHA-256 of their code, when the site has pinned it; then no other function runs, whatever is
        in `allowed_functions`.
    """

    def __init__(
        self,
        engine: Engine,
        audit: Audit,
        allowed_functions: frozenset[str] | None = None,
        pinned_functions: Mapping[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._audit = audit
        self._places = threading.Lock()
        self._placed: dict[str, _Place] = {}
        engine.when_placed = self._running
        self._pinned = pinned_functions
        self._allowed = allowed_functions if pinned_functions is None else frozenset(pinned_functions)

    @property
    def works(self) -> bool:
        """Whether the engine can run anything."""
        return self._engine.failure is None

    def submit(self, task_id: str, delivery: Delivery, answer: Callable[[bytes], None]) -> None:
        """Has the task of `delivery` run, and `answer` called once, in whatever thread, with the packed result."""
        function = delivery.headers.get("function_uuid")
        self._audit.record("RECEIVED", task_id, function)
        if self._allowed is not None and str(function).lower() not in self._allowed:
            log.warning("task %s: function %s is not allowed here", task_id, function)
            self._audit.record("FAILED", task_id, function, "Function not permitted on endpoint")
            answer(error_results.not_allowed(task_id, function, self._engine.context.endpoint_id))
            return
        try:
            task = _task_request(task_id, delivery)
            if self._pinned is not None:
                task = pinned.check(task, str(function), self._pinned[str(function).lower()])
        except (ValueError, TypeError, RecursionError) as e:
            answer(error_results.failure(task_id, f"Failed to start task: {e}"))
            return
        except pinned.NotPinned as e:
            log.warning("task %s: %s", task_id, e)
            self._audit.record("FAILED", task_id, function, "Not as pinned on endpoint")
            answer(error_results.failure(task_id, str(e), error_results.NOT_ALLOWED))
            return
        self._audit.record("EXEC_START", task_id, function)
        self._placed[task_id] = _Place(function)
        self._engine.submit(task).add_done_callback(lambda done: self._finished(task_id, function, answer, done))

    def _finished(self, task_id: str, function: object, answer: Callable[[bytes], None], done: Future[bytes]) -> None:
        with self._places:
            place = self._placed.pop(task_id, _Place(function))
            self._audit.record("EXEC_END", task_id, function, block=place.block, job=place.job)
        answer(error_results.bounded(task_id, done.result()))

    def _running(self, task_id: str, block: str, job: str) -> None:
        """A task is on a node. Told of one that has ended already, which is on record then, it is too late."""
        with self._places:
            if (known := self._placed.get(task_id)) is not None:
                self._placed[task_id] = _Place(known.function, block, job)
                self._audit.record("RUNNING", task_id, known.function, block=block, job=job)


class _Place(NamedTuple):
    """Which function a task calls, and where it runs, as far as that is known."""

    function: object
    block: str = ""
    job: str = ""


def _task_request(task_id: str, delivery: Delivery) -> TaskRequest:
    """Reads the headers of a delivery.

    Raises:
        ValueError, TypeError, RecursionError: the headers are not as they should be.
    """
    resources: dict[str, Any] = dict(json.loads(delivery.headers.get("resource_specification") or "{}") or {})
    serializers = delivery.headers.get("result_serializers") or ()
    return TaskRequest(task_id, delivery.body, resources, tuple(map(str, serializers)))
