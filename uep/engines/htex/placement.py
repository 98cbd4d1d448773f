"""Hears from Parsl's interchange in which block tasks are, at a high-assurance endpoint: its records say so.

The interchange tells a "monitoring hub" whenever it has sent tasks to a node, or a task has ended: all that are on that
node. Parsl's own hub is one more process, and a queue; this is a thread and a socket on this machine's loopback, with
the keys that the executor has made for its own sockets.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

LOOK = 200
"""Milliseconds after which the thread looks whether it is to end."""


class Placement:
    """For one executor that has not been started. `told` is called in the thread: task, block, batch job."""

    def __init__(self, executor: Any, told: Callable[[str, str, str], None]) -> None:
        self._executor = executor
        self._told = told
        self._lock = threading.Lock()
        self._tasks: dict[Any, str] = {}
        self._blocks: dict[Any, str] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        start_interchange = executor._start_local_interchange_process

        def start() -> None:
            """Just before the interchange starts, and once there are keys."""
            self._listen()
            start_interchange()

        executor._start_local_interchange_process = start

    def submit(self, task_id: str, submit: Callable[[], Any]) -> Any:
        """Submits a task; returns its future. Nothing is heard of it before it is known here."""
        with self._lock:
            running = submit()
            number = running.parsl_executor_task_id
            self._tasks[number] = task_id
        running.add_done_callback(lambda _: self._forget(number))
        return running

    def stop(self) -> None:
        """Listens no longer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self) -> None:
        import zmq
        from parsl import curvezmq
        from parsl.addresses import tcp_url

        executor = self._executor
        context = curvezmq.ServerContext(executor.cert_dir)
        socket = context.socket(zmq.DEALER)
        first, last = executor.interchange_port_range
        address = tcp_url(executor.loopback_address)
        executor.hub_zmq_port = socket.bind_to_random_port(address, min_port=first, max_port=last)
        self._thread = threading.Thread(target=self._hear, args=(context, socket), name="placement", daemon=True)
        self._thread.start()

    def _hear(self, context: Any, socket: Any) -> None:
        while not self._stopping.is_set():
            if not socket.poll(LOOK):
                continue
            try:
                _, node = socket.recv_pyobj()
                self._place(node["tasks"], str(node["block_id"]))
            except Exception as e:  # noqa: BLE001 - another Parsl's words: no reason to hear no more
                log.warning("what Parsl says of its nodes cannot be read: %s: %s", type(e).__name__, e)
        context.destroy(linger=0)

    def _place(self, numbers: list[Any], block: str) -> None:
        job = str(self._executor.blocks_to_job_id.get(block) or "")
        with self._lock:
            new = [each for each in numbers if each in self._tasks and self._blocks.get(each) != block]
            self._blocks.update(dict.fromkeys(new, block))
            tasks = [self._tasks[each] for each in new]
        for task_id in tasks:
            self._told(task_id, block, job)

    def _forget(self, number: Any) -> None:
        with self._lock:
            self._tasks.pop(number, None)
            self._blocks.pop(number, None)
