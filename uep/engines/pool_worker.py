"""Handles the worker processes of a process pool, and the program that they are forked from, in the endpoint.

`process_pool` makes one `WorkerProgram`, and a `PoolWorker` for each worker. The other side is
`uep.workers.pool_program`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from concurrent.futures import Future

from uep.workers import pool_program

STALL = 10.0
"""Seconds without progress of a message to or from a worker after which the worker is given up."""
LOADING = 120.0
"""Seconds for the program that workers are forked from to load the SDK, on a slow file system perhaps."""


class PoolWorker:
    """One process, our end of its socket, and the future of the task that it has. `process` is a pidfd."""

    def __init__(self, ours: socket.socket, process: int) -> None:
        self.socket = ours
        self.socket.settimeout(STALL)
        self.answer: Future[bytes] | None = None
        self.tasks = 0
        self._process: int | None = process

    def kill(self) -> None:
        """Kills the process, also one that is dead already."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
            self.socket.close()


class WorkerProgram:
    """The program that workers are forked from; started when it is needed, and again should it have died."""

    def __init__(self, directory: str, python: str) -> None:
        self._directory = directory
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(self) -> tuple[socket.socket, int]:
        """Has a worker forked; returns our end of its socket, and its pidfd.

        Raises:
            OSError: there can be no other process now.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                return ours, self._ask(theirs)
            except OSError:
                ours.close()
                raise

    def end(self) -> None:
        """Ends the program, and with it all workers."""
        process, self._process = self._process, None
        if process is not None and self._socket is not None:
            self._socket.close()
            process.kill()
            process.wait()

    def _ask(self, theirs: socket.socket) -> int:
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._start()
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [b"+"], [theirs.fileno()])
            said, process = pool_program.receive_descriptor(self._socket)
        except OSError:  # a late answer would be taken for that to the next request
            self.end()
            raise
        if process is None:
            raise OSError(f"no worker process can be made: {said or 'their program has ended'}")
        return process

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(LOADING)
        with theirs:
            number = theirs.fileno()
            command = [self._python, "-I", pool_program.__file__, str(number)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[number], cwd=self._directory)
