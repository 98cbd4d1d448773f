"""ProcessPoolEngine: each task in a worker process on this machine.

Workers are forked from a helper process that has the SDK loaded already: a new one is ready in milliseconds and shares
that memory. Each has a connection of its own to the endpoint and one job at a time, so that a worker that dies takes
nothing along but the task it was running; that task fails, and the worker is replaced when the next one comes.

Workers are started as tasks come, up to `max_workers`, the first one right away. One thread waits for what they send.
They die with the endpoint, also when that is killed, and the helper after them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar

from uep.engines.base import Job, Kinds, Place

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
from uep.engines.pools import PoolEngine


class WorkerDied(Exception):
    """The process that ran the task ended (killed, out of memory, crashed)."""


class ProcessPoolEngine(PoolEngine):
    """Options: `max_workers` (default: one for each core), `max_tasks_per_child`."""

    OPTIONS: ClassVar[Mapping[str, Kinds]] = {"max_workers": int, "max_tasks_per_child": int}

    def __init__(self, place: Place, options: Mapping[str, Any]) -> None:
        super().__init__(place, options)
        self.max_workers = self._count(default=len(os.sched_getaffinity(0)))
        self._lock = threading.Lock()  # jobs come from the loop's thread, results in the listening one
        self._waiting: deque[tuple[Job, Future[bytes]]] = deque()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._selector = selectors.DefaultSelector()
        self._stopped = False

    def start(self) -> None:
        import multiprocessing  # 40 ms: not before check-in

        context = multiprocessing.get_context("forkserver")
        # The helper looks for modules where it is started: not in a home with a random.py of the user's.
        os.chdir(self.place.directory)
        context.set_forkserver_preload(["uep.engines.preload"])
        first = self._new_worker()
        with self._lock:
            self._idle.append(first)
        threading.Thread(target=self._listen, name="pool", daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            workers = list(self._workers)
        for each in workers:
            each.process.kill()

    def _launch(self, job: Job) -> Future[bytes]:
        self._refuse_resources(job)
        answer: Future[bytes] = Future()
        with self._lock:
            self._waiting.append((job, answer))
        self._dispatch()
        return answer

    def _dispatch(self) -> None:
        """Gives waiting jobs to idle workers, and to new ones as long as there may be more."""
        while True:
            with self._lock:
                if self._stopped or not self._waiting:
                    return
                if not self._idle and len(self._workers) >= self.max_workers:
                    return
                job, answer = self._waiting.popleft()
                chosen = self._idle.pop() if self._idle else None
            self._give(chosen, job, answer)

    def _give(self, chosen: _Worker | None, job: Job, answer: Future[bytes]) -> None:
        request = pickle.dumps((job.body, job.task_id, self.place.endpoint_id, self.task_options(job)))
        while True:
            chosen = chosen or self._new_worker()
            chosen.answer = answer
            try:
                chosen.connection.send_bytes(request)
            except OSError:  # it died while it had nothing to do: the job is not to blame
                chosen.answer = None
                self._discard(chosen)
                chosen = None
            else:
                return

    def _new_worker(self) -> _Worker:
        new = _Worker()
        with self._lock:
            self._workers.add(new)
        self._selector.register(new.connection, selectors.EVENT_READ, new)
        return new

    def _listen(self) -> None:
        while True:
            for key, _ in self._selector.select():
                self._hear(key.data)

    def _hear(self, worker: _Worker) -> None:
        try:
            packed = worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._discard(worker)
            if (answer := worker.answer) is not None:
                answer.set_exception(WorkerDied("The worker process of the task died (killed, out of memory, crashed)"))
        else:
            answer, worker.answer = worker.answer, None
            worker.tasks += 1
            self._free(worker)
            assert answer is not None
            answer.set_result(packed)
        self._dispatch()

    def _free(self, worker: _Worker) -> None:
        if worker.tasks == self._options.get("max_tasks_per_child"):
            self._discard(worker)
        else:
            with self._lock:
                self._idle.append(worker)

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
        with contextlib.suppress(KeyError, ValueError, OSError):  # already discarded by the other thread
            self._selector.unregister(worker.connection)
        worker.connection.close()
        worker.process.kill()


class _Worker:
    """One process, our end of its connection, and the future of the job that it has."""

    def __init__(self) -> None:
        import multiprocessing

        from uep.engines.pool_worker import serve

        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        self.connection: Connection = ours
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.answer: Future[bytes] | None = None
        self.tasks = 0
