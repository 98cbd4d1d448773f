"""Runs Parsl's interchange, the process between the endpoint and its workers, so that it dies with the endpoint.

`htex` starts it as `python -m uep.engines.interchange`; its configuration comes on standard input. Without this an
endpoint that is killed leaves an interchange behind, and with it the batch jobs, which run on as long as it answers.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main() -> None:
    """Never returns; the kernel sends SIGTERM when the thread that started this process has ended."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent != 1:
        runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")


if __name__ == "__main__":
    main()
