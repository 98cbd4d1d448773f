"""ProcessPoolEngine: runs each task in a worker process on this machine.

Workers are forked from a program that has the SDK loaded already (`uep.workers.pool_program`). Each has a socket of its
own to the endpoint and one task at a time, so that a worker that dies takes nothing along but the task it was running;
that task fails, and the worker is replaced when the next one comes.

Workers are started as tasks come, up to `max_workers`, the first one right away. One thread has them: it gives them
their tasks and takes their results, and waits for none of them: one that stands still holds up nobody else. They die
with the endpoint, also when that is killed, and so does what tasks have started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from uep.config import ConfigError
from uep.engines.base import EngineContext, TaskRequest
from uep.engines.options import Kinds
from uep.engines.pool import PoolEngine
from uep.engines.pool_worker import Job, PoolWorker, WorkerProgram
from uep.workers.endings import MemoryKills
from uep.workers.versions import difference

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at workers that may stand still in the middle of a message."""
MOST_FAILED = 5
"""Workers that may end or stand still while they are given one task, before it is the task that is to blame."""
JOIN = 2.0
"""Seconds for the thread to end; it may be waiting for a new worker."""


class WorkerDied(Exception):
    """The process that ran the task ended (killed, out of memory, crashed)."""


class ProcessPoolEngine(PoolEngine):
    """Options: `max_workers` (one for each core), `max_tasks_per_child`, `python` (the endpoint's)."""

    OPTIONS: ClassVar[Mapping[str, Kinds]] = {"max_workers": int, "max_tasks_per_child": int, "python": str}

    def __init__(self, context: EngineContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.max_workers = self._count("max_workers", default=len(os.sched_getaffinity(0)))
        self._tasks_per_worker = self._count("max_tasks_per_child", default=sys.maxsize)
        self._waiting: deque[Job] = deque()
        self._idle: list[PoolWorker] = []
        self._workers: set[PoolWorker] = set()
        self._selector = selectors.DefaultSelector()
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._python = os.path.expanduser(options.get("python", sys.executable))  # noqa: PTH111
        self._program = WorkerProgram(str(context.directory), self._python)
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
        self._memory_kills = MemoryKills()
        self._stopped = False

    @property
    def python_problem(self) -> str:
        return f"{self.name}.python names one already" if "python" in self._options else ""

    def use_environment(self, environment: Path) -> None:
        self._program = WorkerProgram(str(self.context.directory), self._python, environment)

    def start(self) -> None:
        self._check_serializers()
        if not os.path.isabs(self._python) or not os.access(self._python, os.X_OK):  # noqa: PTH117
            raise ConfigError(f"{self.name}.python: expected the absolute path of a Python that can be executed here")
        self._idle.append(self._new_worker())
        self._bell = socket.socketpair()
        for end in self._bell:
            end.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wake()
        if self._bell is not None:
            self._thread.join(JOIN)
            for end in self._bell:
                end.close()
        self._waiting.clear()
        self._program.end()  # before the workers: their tasks read what programs write until these have ended
        for each in list(self._workers):
            each.kill()

    def _launch(self, task: TaskRequest) -> Future[bytes]:
        self._refuse_resources(task)
        answer: Future[bytes] = Future()
        self._waiting.append(Job(task, answer))
        self._wake()
        return answer

    def _outstanding(self) -> int:
        return len(self._waiting) + len(self._workers) - len(self._idle)

    def _wake(self) -> None:
        """Has the thread look at what waits."""
        if self._bell is not None:
            with contextlib.suppress(OSError):  # full: it will look anyhow
                self._bell[1].send(b"!")

    # In the thread

    def _run(self) -> None:
        assert self._bell is not None
        heard = self._bell[0]
        self._selector.register(heard, selectors.EVENT_READ)
        try:
            while not self._stopped:
                self._dispatch()
                timeout = LOOK if any(worker.is_in_message for worker in self._workers) else None
                for key, _ in self._selector.select(timeout):
                    if key.data is None:
                        heard.recv(4096)
                    elif key.data in self._workers:
                        self._move(key.data)
                for worker in [worker for worker in self._workers if worker.stands_still]:
                    self._lose(worker, "it stood still")
        except Exception as e:
            if not self._stopped:
                log.exception("the thread that has the workers has failed")
                self.failure = f"its workers cannot be heard any more: {e!r}"

    def _dispatch(self) -> None:
        """Gives waiting tasks to idle workers, and to new ones as long as there may be more."""
        while self._waiting and not self._stopped:
            if not self._idle:
                if len(self._workers) >= self.max_workers:
                    return
                try:
                    self._idle.append(self._new_worker())
                except OSError as e:
                    if self._workers:  # they will take it
                        return
                    self._waiting.popleft().answer.set_exception(e)
                    continue
            worker, job = self._idle.pop(), self._waiting.popleft()
            task = job.task
            arguments = (task.body, task.task_id, self.context.endpoint_id, self.task_options(task))
            worker.begin(job, pickle.dumps(arguments))
            self._move(worker)

    def _new_worker(self) -> PoolWorker:
        """Has another worker forked.

        Raises:
            OSError: there can be no other process now.
        """
        new = self._program.fork()
        self._workers.add(new)
        self._selector.register(new.socket, selectors.EVENT_READ, new)
        return new

    def _move(self, worker: PoolWorker) -> None:
        """Sends to a worker, and hears it, as far as that goes without waiting."""
        try:
            packed = worker.move()
        except (EOFError, OSError):
            self._lose(worker, worker.ending() or "it closed its connection")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.is_receiving else 0)
        self._selector.modify(worker.socket, events, worker)
        if packed is None:
            return
        job, worker.job = worker.job, None
        if worker.tasks >= self._tasks_per_worker:
            self._discard(worker)
        else:
            self._idle.append(worker)
        if job is not None:
            job.answer.set_result(packed)

    def _lose(self, worker: PoolWorker, how: str) -> None:
        """Answers the job of a worker that is no more; one that it has not had in full goes to another."""
        job, had_it = worker.job, not worker.is_receiving
        self._discard(worker)
        if job is None:
            return
        if not had_it and job.failed < MOST_FAILED:
            self._waiting.appendleft(job._replace(failed=job.failed + 1))
            return
        text = f"The worker process of the task died: {how}{self._memory_kills.reason()}"
        job.answer.set_exception(WorkerDied(f"{text}\n{difference()}".rstrip()))

    def _discard(self, worker: PoolWorker) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._selector.unregister(worker.socket)
        worker.kill()
