"""Runs one of Parsl's programs, sooner than Parsl itself would: `python .../parsl_program.py NAME ARGUMENT...`.

`interchange`          between the endpoint and its workers; ends with the endpoint, also when that is killed, and tells
                       the worker pools to end. It would otherwise stay, and with it the batch jobs, which run on as
                       long as it answers, and then for `heartbeat_threshold` seconds more
`process_worker_pool`  on each node, above the workers

Parsl would import for them what they do not need: the SDK (half a second) and run-time type checks (a fifth). The pool
starts processes that import its program again: the workers, and a manager of shared objects. They import this file
instead, for the same reason, and the workers import the SDK when the first task comes.

Run as a file, also a copy of it, and not with `-m`: that would look for modules in the working directory first, which
is the user's home. For the same reason it uses nothing else of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from importlib.abc import InspectLoader
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
FAREWELL = 2
"""Seconds for the interchange to reach the worker pools when it ends."""

PACKAGE = "parsl.executors.high_throughput"


def main() -> None:
    """Runs the program named first on the command line, to its end."""
    name = sys.argv.pop(1)
    if name == "interchange" and not _die_with_parent():
        return
    with without_sdk(), _without_type_checks():
        spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
        assert spec is not None and isinstance(spec.loader, InspectLoader)
        # As if it were this program: what its children look for in __main__, they find below.
        program = vars(sys.modules["__main__"])
        try:
            exec(spec.loader.get_code(spec.name) or "", program)  # noqa: S102 - an installed module
        finally:
            if "ic" in program:
                _dismiss_pools(program["ic"], program["PKL_SHUTDOWN_CODE"])


@contextlib.contextmanager
def without_sdk() -> Iterator[None]:
    """Inside, `globus_compute_sdk` cannot be imported, unless it is already; Parsl then leaves it out."""
    block = "globus_compute_sdk" not in sys.modules
    if block:
        sys.modules["globus_compute_sdk"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if block:
            del sys.modules["globus_compute_sdk"]


@contextlib.contextmanager
def _without_type_checks() -> Iterator[None]:
    import typeguard

    checked = typeguard.typechecked
    typeguard.typechecked = lambda function: function  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checked


def _die_with_parent() -> bool:
    """The kernel sends SIGTERM when the thread that started us ends; False when it has ended already."""
    signal.signal(signal.SIGTERM, _leave)
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent != 1


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.alarm(2 * FAREWELL)  # whatever happens
    sys.exit()


def _dismiss_pools(interchange: Any, message: bytes) -> None:
    for pool in interchange._ready_managers:
        interchange.manager_sock.send_multipart([pool, message])
    interchange.zmq_context.destroy(linger=1000 * FAREWELL)


if __name__ == "__main__":
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - as Python put it there
    main()
elif __name__ == "__mp_main__":  # a process that the worker pool has started
    with without_sdk(), _without_type_checks():
        from parsl.executors.high_throughput.process_worker_pool import worker  # noqa: F401
