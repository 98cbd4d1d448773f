"""ProcessPoolEngine: runs each task in a worker process on this machine.

Workers are forked from a program that has the SDK loaded already (`uep.workers.pool_program`). Each has a socket of its
own to the endpoint and one task at a time, so that a worker that dies takes nothing along but the task it was running;
that task fails, and the worker is replaced when the next one comes.

Workers are started as tasks come, up to `max_workers`, the first one right away. One thread waits for what they send.
They die with the endpoint, also when that is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import sys
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, ClassVar

from uep.config import ConfigError
from uep.engines.base import EngineContext, TaskRequest
from uep.engines.options import Kinds
from uep.engines.pool import PoolEngine
from uep.engines.pool_worker import PoolWorker, WorkerProgram
from uep.workers import pool_program
from uep.workers.versions import difference

log = logging.getLogger(__name__)


class WorkerDied(Exception):
    """The process that ran the task ended (killed, out of memory, crashed)."""


class ProcessPoolEngine(PoolEngine):
    """Options: `max_workers` (one for each core), `max_tasks_per_child`, `python` (the endpoint's)."""

    OPTIONS: ClassVar[Mapping[str, Kinds]] = {"max_workers": int, "max_tasks_per_child": int, "python": str}

    def __init__(self, context: EngineContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.max_workers = self._count("max_workers", default=len(os.sched_getaffinity(0)))
        self._tasks_per_worker = self._count("max_tasks_per_child", default=sys.maxsize)
        self._lock = threading.Lock()  # tasks come from the loop's thread, results in the listening one
        self._waiting: deque[tuple[TaskRequest, Future[bytes]]] = deque()
        self._idle: list[PoolWorker] = []
        self._workers: set[PoolWorker] = set()
        self._selector = selectors.DefaultSelector()
        self._python = os.path.expanduser(options.get("python", sys.executable))  # noqa: PTH111
        self._program = WorkerProgram(str(context.directory), self._python)
        self._stopped = False

    def start(self) -> None:
        self._check_serializers()
        if not os.path.isabs(self._python) or not os.access(self._python, os.X_OK):  # noqa: PTH117
            raise ConfigError(f"{self.name}.python: expected the absolute path of a Python that can be executed here")
        first = self._new_worker()
        assert first is not None
        self._idle.append(first)
        threading.Thread(target=self._listen, name="pool", daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            for each in self._workers:
                each.kill()
            self._program.end()

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        self._refuse_resources(task)
        answer: Future[bytes] = Future()
        with self._lock:
            self._waiting.append((task, answer))
        self._dispatch()
        return answer

    def _outstanding(self) -> int:
        with self._lock:
            return len(self._waiting) + len(self._workers) - len(self._idle)

    def _dispatch(self) -> None:
        """Gives waiting tasks to idle workers, and to new ones as long as there may be more."""
        while True:
            with self._lock:
                if self._stopped or not self._waiting:
                    return
                if not self._idle and len(self._workers) >= self.max_workers:
                    return
                task, answer = self._waiting.popleft()
                chosen = self._idle.pop() if self._idle else None
            if not self._give(chosen, task, answer):
                return

    def _give(self, chosen: PoolWorker | None, task: TaskRequest, answer: Future[bytes]) -> bool:
        """Gives the task to a worker, or back to those that wait: False when no worker can be had for it now."""
        request = pickle.dumps((task.body, task.task_id, self.context.endpoint_id, self.task_options(task)))
        while True:
            try:
                chosen = chosen or self._new_worker()
            except OSError as e:
                with self._lock:
                    nobody = not self._workers
                if nobody:
                    answer.set_exception(e)
                    return True
            if chosen is None:
                with self._lock:
                    self._waiting.appendleft((task, answer))
                    return bool(self._idle)  # one that was freed meanwhile has found nothing to do
            chosen.answer = answer
            try:
                pool_program.send(chosen.socket, request)
            except OSError:  # it died while it had nothing to do: the task is not to blame
                mine = self._take_answer(chosen) is not None
                self._discard(chosen)
                if not mine:  # the other thread has seen the end of the worker first, and answered
                    return True
                chosen = None
            else:
                return True

    def _take_answer(self, worker: PoolWorker) -> Future[bytes] | None:
        """Takes the future of the worker's task away from the worker: only one thread gets it, and ends it once."""
        with self._lock:
            answer, worker.answer = worker.answer, None
        return answer

    def _new_worker(self) -> PoolWorker | None:
        """Has another worker forked; None when there are as many as may be.

        Raises:
            OSError: there can be no other process now.
        """
        with self._lock:
            if self._stopped or len(self._workers) >= self.max_workers:
                return None
            new = PoolWorker(*self._program.fork())
            self._workers.add(new)
        self._selector.register(new.socket, selectors.EVENT_READ, new)
        return new

    def _listen(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select():
                    self._hear(key.data)
        except Exception as e:
            if not self._stopped:
                log.exception("the thread that hears the workers has failed")
                self.failure = f"its workers cannot be heard any more: {e!r}"

    def _hear(self, worker: PoolWorker) -> None:
        try:
            packed = pool_program.receive(worker.socket)
        except (EOFError, OSError):
            self._discard(worker)
            if (answer := self._take_answer(worker)) is not None:
                text = "The worker process of the task died (killed, out of memory, crashed)"
                answer.set_exception(WorkerDied(f"{text}\n{difference()}".rstrip()))
        else:
            answer = self._take_answer(worker)
            worker.tasks += 1
            self._free(worker)
            if answer is not None:
                answer.set_result(packed)
        self._dispatch()

    def _free(self, worker: PoolWorker) -> None:
        if worker.tasks >= self._tasks_per_worker:
            self._discard(worker)
        else:
            with self._lock:
                self._idle.append(worker)

    def _discard(self, worker: PoolWorker) -> None:
        with self._lock:
            self._workers.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
        with contextlib.suppress(KeyError, ValueError, OSError):  # already discarded by the other thread
            self._selector.unregister(worker.socket)
        worker.kill()
