"""Runs one of Parsl's programs, sooner than Parsl itself would: `python .../parsl_program.py NAME ARGUMENT...`.

`interchange`          between the endpoint and its workers; ends with the endpoint, also when that is killed, and tells
                       the worker pools to end. It would otherwise stay, and with it the batch jobs, which run on as
                       long as it answers, and then for `heartbeat_threshold` seconds more
`process_worker_pool`  on each node, above the workers, below a guard (`guard`); tells how a lost worker has ended; in
                       MPI mode with the mends of `_mend_mpi`

Parsl would import for them much that they do not need: all of itself, the SDK, run-time type checks. The pool starts
processes that import its program again: the workers, and a manager of shared objects. They import this file instead,
and of it the workers take what they are to run; those import the SDK when the first task comes.

Run isolated (`python -I`), as a file, also a copy of it. The user's own modules are found behind the worker's until
the first task comes (`user_modules`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import pickle
import signal
import sys
import threading
from importlib.abc import InspectLoader
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

if "uep" not in sys.modules:  # ours, installed or not, whatever else has that name
    sys.modules["uep"] = ModuleType("uep")
    sys.modules["uep"].__path__ = [str(Path(__file__).resolve().parents[1])]
from uep.workers import execution, guard, user_modules, versions
from uep.workers.endings import MemoryKills, described
from uep.workers.parsl_import import partial_parsl_imports

LOG = 1 << 20
"""Bytes of each log of Parsl's, and of the one before: of the interchange, of a pool, of each of its workers."""
FAREWELL = 2
"""Seconds for the interchange to reach the worker pools when it ends."""

PACKAGE = "parsl.executors.high_throughput"


def main() -> None:
    """Runs the program named first on the command line, to its end."""
    name = sys.argv.pop(1)
    if name == "interchange" and not _die_with_parent():
        return
    if name == "process_worker_pool":
        guard.guarded(signal.SIGTERM)  # some launchers send it to what they have started only, others to all below
    if importlib.util.find_spec("parsl") is None:
        sys.exit(f"The package parsl is not installed where the worker runs: {sys.executable} on {os.uname().nodename}")
    with partial_parsl_imports():
        _compare_versions()
        _bound_logs()
        if name == "process_worker_pool":
            _tell_how_workers_end()
        if "--enable_mpi_mode" in sys.argv:
            _mend_mpi()
        spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
        assert spec is not None and isinstance(spec.loader, InspectLoader)
        # As if it were this program: what its children look for in __main__, they find below.
        program = vars(sys.modules["__main__"])
        try:
            exec(spec.loader.get_code(spec.name) or "", program)  # noqa: S102 - an installed module
        finally:
            if "ic" in program:
                _dismiss_pools(program["ic"], program["PKL_SHUTDOWN_CODE"])


def _compare_versions() -> None:
    """Ends this program if the endpoint wants another Parsl: what they send each other changes between versions."""
    from parsl.version import VERSION

    wanted = os.environ.pop("MEP_PARSL", VERSION)
    if wanted != VERSION:
        sys.exit(versions.other_parsl(wanted, VERSION, versions.here()))


def _bound_logs() -> None:
    """Has Parsl's logs begin anew: it writes a few lines for each task, for as long as the endpoint is used."""
    from parsl import log_utils

    file = functools.partial(RotatingFileHandler, maxBytes=LOG, backupCount=1)
    vars(log_utils)["logging"] = SimpleNamespace(**vars(logging) | {"FileHandler": file})


def _tell_how_workers_end() -> None:
    """Has Parsl's error for a lost worker say how its process has ended."""
    from multiprocessing import popen_fork

    from parsl.executors.high_throughput.errors import WorkerLost

    lost: Any = WorkerLost
    process: Any = popen_fork.Popen
    pythons_poll = process.poll
    statuses: dict[int, int] = {}
    memory_kills = MemoryKills()

    def poll(self: Any, flag: int = os.WNOHANG) -> int | None:
        """As Python's, which forgets whether there is a core."""
        if self.returncode is None:
            with contextlib.suppress(OSError):
                ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flag)
                if ended is not None and ended.si_code == os.CLD_EXITED:
                    statuses[self.pid] = ended.si_status << 8
                elif ended is not None:
                    statuses[self.pid] = ended.si_status | (0x80 if ended.si_code == os.CLD_DUMPED else 0)
        code: int | None = pythons_poll(self, flag)
        return code

    def tell(self: Any, worker_id: int, hostname: str) -> None:
        self.worker_id, self.hostname = worker_id, hostname
        # The watchdog, which makes these errors, has the process in a variable.
        worker = sys._getframe(1).f_locals.get("p")
        status = statuses.get(getattr(worker, "pid", -1))
        if status is not None:
            self.hostname += f": its process {described(status)}{memory_kills.reason()}"

    process.poll, lost.__init__ = poll, tell


def _mend_mpi() -> None:
    """Mends Parsl's scheduler of MPI tasks in three places where tasks would wait for ever.

    It loses the result after which there is still a task that has to wait for nodes (Parsl's issue 3800); it may
    overlook one that comes in the moment in which nodes get free (3829); and it keeps those that want more than there
    are.
    """
    from parsl.app.errors import RemoteExceptionWrapper
    from parsl.executors.high_throughput.mpi_resource_management import MPINodesUnavailable, MPITaskScheduler
    from parsl.serialize import serialize

    scheduler: Any = MPITaskScheduler
    parsls_put_task, lock = scheduler.put_task, threading.RLock()

    def put_task(self: Any, task: dict[str, Any]) -> None:
        needed, there = task["context"]["resource_spec"]["num_nodes"], len(self.available_nodes)
        with lock:
            if needed <= there:
                parsls_put_task(self, task)
                return
        error = RemoteExceptionWrapper(MPINodesUnavailable, MPINodesUnavailable(needed, there), None)
        result = {"type": "result", "task_id": task["task_id"], "exception": serialize(error)}
        self._map_tasks_to_nodes[task["task_id"]] = []
        self.pending_result_q.put(pickle.dumps(result))

    def schedule_backlog_tasks(self: Any) -> None:
        waiting = self._backlog_queue
        with lock:
            for each in [waiting.get(block=False) for _ in range(waiting.qsize())]:
                parsls_put_task(self, each.task)

    scheduler.put_task, scheduler._schedule_backlog_tasks = put_task, schedule_backlog_tasks


def _die_with_parent() -> bool:
    """Has the kernel send SIGTERM when the thread that started this program ends; False when it has ended already."""
    signal.signal(signal.SIGTERM, _leave)
    parent = os.getppid()
    return guard.die_with(parent, signal.SIGTERM) and parent != 1


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # the kernel sends one for each thread of the endpoint that might go on
    signal.alarm(2 * FAREWELL)  # whatever happens
    sys.exit()


def _dismiss_pools(interchange: Any, message: bytes) -> None:
    for pool in interchange._ready_managers:
        interchange.manager_sock.send_multipart([pool, message])
    interchange.zmq_context.destroy(linger=1000 * FAREWELL)


def __getattr__(name: str) -> Any:
    """Imports `worker` for the processes that the pool starts, to which this file is the pool's program."""
    if name != "worker":
        raise AttributeError(name)
    guard.die_with(os.getppid())  # if the pool is dead already that is the guard, which ends us
    guard.leave_signals()
    sys.modules[user_modules.TASK_MODULE] = execution  # that of the package's name is hidden from tasks
    with partial_parsl_imports():
        _bound_logs()
        from parsl.executors.high_throughput.process_worker_pool import worker
    return worker


if __name__ == "__main__":
    if sys.argv[1] != "interchange":
        user_modules.append()  # Parsl itself may be there
    main()
