"""ThreadPoolEngine: runs tasks in threads of the endpoint itself.

The cheapest engine, for light tasks: no process of their own, so tasks share the working directory and the
environment, and a task that hangs cannot be ended but with the endpoint. What tasks have started is ended with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from uep.config import ConfigError
from uep.engines.base import EngineContext, TaskRequest
from uep.engines.options import Kinds
from uep.engines.pool import PoolEngine
from uep.workers import execution, programs


class ThreadPoolEngine(PoolEngine):
    """Options: `max_workers` (default: as Python's thread pool), `thread_name_prefix`."""

    OPTIONS: ClassVar[Mapping[str, Kinds]] = {"max_workers": int, "thread_name_prefix": str}

    def __init__(self, context: EngineContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.max_workers = self._count("max_workers", default=min(32, (os.cpu_count() or 1) + 4))
        if options.get("run_in_sandbox") and self.max_workers > 1:
            raise ConfigError(
                f"{self.name}.run_in_sandbox: threads share one working directory, so a task would change that of"
                f" others that run; set max_workers: 1 (it is {self.max_workers}), or take ProcessPoolEngine"
            )
        self._open = 0
        self._lock = threading.Lock()  # tasks end in the pool's threads
        self._pool = ThreadPoolExecutor(self.max_workers, options.get("thread_name_prefix", "task"))
        self._not_of_tasks: list[programs.Process] | None = None

    @property
    def python_problem(self) -> str:
        return f"tasks of {self.name} run in the endpoint itself, with its Python"

    def start(self) -> None:
        self._check_serializers()
        execution.get_ready(user_modules_first=False)
        self._not_of_tasks = programs.below(os.getpid())

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if (others := self._not_of_tasks) is not None:
            programs.end(lambda: _of_tasks(others))

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


def _of_tasks(others: Collection[programs.Process]) -> list[programs.Process]:
    """Finds what tasks have started: all below this process but for `others`, and what has lost its parent since then.

    The latter has one of those above us as its parent now, and its environment says from which endpoint's task it is.
    """
    found, above, pid = {process.pid: process for process in programs.all_processes()}, set(), os.getpid()
    while (process := found.get(pid)) is not None and process.parent not in above:
        pid = process.parent
        above.add(pid)
    lost = [each for each in found.values() if each.parent in above and _is_of_a_task(each.pid)]
    return [*lost, *programs.below(os.getpid(), *(each.pid for each in lost), without=others)]


def _is_of_a_task(pid: int) -> bool:
    """Tells whether a process that has lost its parent was started by a task of this endpoint."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            is_mine, variables = os.fstat(file.fileno()).st_uid == os.getuid(), file.read().split(b"\0")
    except OSError:
        return False
    directory = b"GLOBUS_COMPUTE_ENDPOINT_DIR=" + os.fsencode(os.environ.get("GLOBUS_COMPUTE_ENDPOINT_DIR", ""))
    return is_mine and directory in variables and any(each.startswith(b"GC_TASK_UUID=") for each in variables)
