"""Handles the worker processes of a process pool, and the program that they are forked from, in the endpoint.

`process_pool` makes one `WorkerProgram`, and a `PoolWorker` for each worker. The other side is
`uep.workers.pool_program`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from uep.engines.base import TaskRequest
from uep.workers import endings, pool_program, programs

STALL = 10.0
"""Seconds without progress of a message to or from a worker after which the worker is given up."""
LOADING = 120.0
"""Seconds for the program that workers are forked from to load the SDK, on a slow file system perhaps."""
LAST_WORDS = 2.0
"""Seconds for a worker that has closed its socket to end, and for its program to say how."""
AT_ONCE = 1 << 20
"""Bytes that are received before others have their turn."""


class Job(NamedTuple):
    """A task, the future of its result, and how many workers could not even be given it."""

    task: TaskRequest
    answer: Future[bytes]
    failed: int = 0


class PoolWorker:
    """One process, our end of its socket, and the job that it has.

    `process` is a pidfd; on `status` comes how it has ended. Nothing here waits, but for `ending`.
    """

    def __init__(self, ours: socket.socket, process: int, status: int) -> None:
        self.socket = ours
        self.socket.setblocking(False)
        self.job: Job | None = None
        self.tasks = 0
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        self._progress = 0.0
        self._process: int | None = process
        self._status = status

    @property
    def is_receiving(self) -> bool:
        """Whether it has not been sent all of its job yet."""
        return len(self._outgoing) > 0

    @property
    def stands_still(self) -> bool:
        """Whether a message to it, or from it, makes no progress."""
        return self.is_in_message and time.monotonic() - self._progress > STALL

    @property
    def is_in_message(self) -> bool:
        """Whether a message to it, or from it, is on its way."""
        return self.is_receiving or len(self._incoming) > 0

    def begin(self, job: Job, request: bytes) -> None:
        """Gives it a job, which `move` then sends."""
        self.job = job
        self._outgoing = memoryview(pool_program.message(request))
        self._progress = time.monotonic()

    def move(self) -> bytes | None:
        """Sends and receives what goes without waiting. Returns the job's packed result once that is there.

        Raises:
            EOFError: the other side has closed the socket, or ended.
            OSError: the socket is broken.
        """
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                self._outgoing = self._outgoing[self.socket.send(self._outgoing) :]
                self._progress = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            received = self.socket.recv(AT_ONCE)
            if not received:
                raise EOFError
            self._incoming += received
            self._progress = time.monotonic()
        packed = pool_program.whole_message(self._incoming)
        if packed is not None:
            self._incoming = bytearray()
            self.tasks += 1
        return packed

    def ending(self) -> str:
        """Says how the process has ended; "" when that is not known, or when it has not ended."""
        if self._process is None or not select.select([self._process], [], [], LAST_WORDS)[0]:
            return ""
        if not select.select([self._status], [], [], LAST_WORDS)[0]:
            return ""
        said = os.read(self._status, 100)
        return endings.described(int(said)) if said else ""

    def kill(self) -> None:
        """Kills the process, also one that is dead already."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
            os.close(self._status)
            self.socket.close()


class WorkerProgram:
    """The program that workers are forked from; started when it is needed, and again should it have died.

    `_process` is its guard, which is there for a while longer. With an `environment`, its Python and its programs are
    those of tasks.
    """

    def __init__(self, directory: str, python: str, environment: Path | None = None) -> None:
        self._directory = directory
        self._python = python if environment is None else str(environment / "bin" / "python")
        self._variables = dict(os.environ)
        if environment is not None:
            found = os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)])
            self._variables |= {"VIRTUAL_ENV": str(environment), "PATH": found}
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(self) -> PoolWorker:
        """Has a worker forked.

        Raises:
            OSError: there can be no other process now.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                return PoolWorker(ours, *self._ask(theirs))
            except OSError:
                ours.close()
                raise

    def end(self) -> None:
        """Ends what tasks have started, then the program and with it all workers; takes seconds."""
        if (process := self._leave()) is not None:
            try:
                process.wait(programs.ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _leave(self) -> subprocess.Popen[bytes] | None:
        """Lets go of the program, which ends by that; returns its guard's process."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
        return process

    def _drop(self) -> None:
        """Lets go of a program that has died, or stands still; nobody waits for what its guard has to end."""
        if (process := self._leave()) is not None:
            threading.Thread(target=process.wait, name="pool guard", daemon=True).start()

    def _is_there(self) -> bool:
        """Tells whether the program lives: it says nothing unasked."""
        return self._socket is not None and not select.select([self._socket], [], [], 0)[0]

    def _ask(self, theirs: socket.socket) -> tuple[int, int]:
        if self._process is None or not self._is_there():
            self._drop()
            self._start()
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [b"+"], [theirs.fileno()])
            said, descriptors = pool_program.receive_descriptors(self._socket)
        except OSError:  # a late answer would be taken for that to the next request
            self._drop()
            raise
        if len(descriptors) != 2:
            raise OSError(f"no worker process can be made: {said or 'their program has ended'}")
        return descriptors[0], descriptors[1]

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(LOADING)
        with theirs:
            number = theirs.fileno()
            command = [self._python, "-I", pool_program.__file__, str(number)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[number], cwd=self._directory, env=self._variables
            )
