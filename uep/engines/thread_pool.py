"""ThreadPoolEngine: runs tasks in threads of the endpoint itself.

The cheapest engine, for light tasks: no process of their own, so tasks share the working directory and the
environment, and a task that hangs cannot be ended but with the endpoint.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from uep.engines.base import EngineContext, TaskRequest
from uep.engines.options import Kinds
from uep.engines.pool import PoolEngine
from uep.workers import execution


class ThreadPoolEngine(PoolEngine):
    """Options: `max_workers` (default: as Python's thread pool), `thread_name_prefix`."""

    OPTIONS: ClassVar[Mapping[str, Kinds]] = {"max_workers": int, "thread_name_prefix": str}

    def __init__(self, context: EngineContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.max_workers = self._count("max_workers", default=min(32, (os.cpu_count() or 1) + 4))
        self._open = 0
        self._lock = threading.Lock()  # tasks end in the pool's threads
        self._pool = ThreadPoolExecutor(self.max_workers, options.get("thread_name_prefix", "task"))

    def start(self) -> None:
        self._check_serializers()
        execution.get_ready(user_modules_first=False)

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        self._refuse_resources(task)
        answer = self._pool.submit(
            execution.execute_task, task.body, task.task_id, self.context.endpoint_id, **self.task_options(task)
        )
        self._add(1)
        answer.add_done_callback(lambda _: self._add(-1))
        return answer

    def _outstanding(self) -> int:
        return self._open

    def _add(self, number: int) -> None:
        with self._lock:
            self._open += number
