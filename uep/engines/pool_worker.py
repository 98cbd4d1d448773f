"""The process that `processes` starts for its tasks: one request after the other from its connection.

`preload` has the helper that all workers are forked from load this, and the SDK.
"""

from __future__ import annotations

import ctypes
import pickle
import signal
from multiprocessing.connection import Connection

from uep import worker

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def serve(connection: Connection) -> None:
    """Runs the tasks that come until the endpoint closes the connection."""
    # A task of an endpoint that was killed has nobody to give its result to.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # What the terminal or the manager sends to the process group is for the endpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            body, task_id, endpoint_id, options = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our parent
            connection.send_bytes(worker.execute_task(body, task_id, endpoint_id, **options))
    except (EOFError, OSError):
        return
