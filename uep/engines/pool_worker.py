"""The process that `processes` starts for its tasks: one request after the other from its connection.

`preload` has the helper that all workers are forked from load this, and the SDK.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from uep import worker


def serve(connection: Connection) -> None:
    """Runs the tasks that come until the endpoint closes the connection."""
    # What the terminal or the manager sends to the process group is for the endpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_descriptors()
    threading.Thread(target=_die_with_the_endpoint, args=(connection.fileno(),), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            body, task_id, endpoint_id, options = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our parent
            connection.send_bytes(worker.execute_task(body, task_id, endpoint_id, **options))


def _keep_descriptors() -> None:
    """What came with the request for this process must not reach the programs that tasks start."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2:
            with contextlib.suppress(OSError):  # the one that listed them
                os.set_inheritable(fd, False)


def _die_with_the_endpoint(fd: int) -> None:
    """A task of an endpoint that was killed has nobody to give its result to."""
    hang_up = select.poll()
    hang_up.register(fd, select.POLLRDHUP)
    hang_up.poll()
    os.kill(os.getpid(), signal.SIGKILL)
