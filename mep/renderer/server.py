"""The render server: each request in a process of its own. A program: `python -m mep.renderer.server`.

User options are hostile until proven otherwise: a schema's pattern may backtrack for ever, a template's loop may be
driven by an option, the sandbox may have a hole. So this runs as an account that owns nothing, in two kinds of process:

  server  imports what is needed, once, and forks. It handles no byte of a request or an answer, so none is in its
          memory, where it would live on and be inherited by the next child. It has given up the network.
  child   takes its limits, then reads its request, has `answer` answer it, and ends. Descriptor 0 is all it has and
          it can get no other, so it opens no file and no socket, and it starts no process. PARALLEL run at a time.

The monitor (`monitor.stages.render_server`) is at the other end of descriptor 0; `processes.render_protocol` has the
messages.
"""

from __future__ import annotations

import gc
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from mep.privileged import kernel, network
from mep.processes.pidfd import send_signal
from mep.processes.render_protocol import CPU, ENDED, JOB, MEMORY, OUT_OF_MEMORY, PARALLEL, WALL

Handler = Callable[[bytes], bytes]
"""Makes the answer to a request. May raise anything."""


def main() -> None:
    """Serves requests until the other end of the socket closes; the children then end with this process."""
    kernel.set_dumpable(False)  # as it is since its exec; but the kernel may have been told to dump for root
    network.forbid()
    from mep.renderer import answer

    answer.warm_up()
    gc.collect()
    gc.freeze()  # what is shared with the children stays shared
    try:
        with socket.socket(fileno=0) as connection:
            _Server(connection, answer.answer).serve()
    except ConnectionError:
        return


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass
class _Child:
    """A child that runs. `deadline` is on the monotonic clock."""

    job: int
    pid: int
    pidfd: int
    deadline: float
    late: bool = False


class _Server:
    """Forks a child for each job that comes, and tells how it ended."""

    def __init__(self, connection: socket.socket, handle: Handler) -> None:
        self._connection = connection
        self._handle = handle
        self._selector = selectors.DefaultSelector()
        self._children: list[_Child] = []
        self._open = False

    def serve(self) -> None:
        self._tell(0, 0)
        while True:
            self._listen(len(self._children) < PARALLEL)
            for key, _ in self._selector.select(self._pause()):
                if key.data is not None:
                    self._reap(key.data)
                elif not self._take():
                    return
            self._kill_late()

    def _listen(self, wanted: bool) -> None:
        """While all places are taken, further jobs wait in the socket, in their order."""
        if wanted and not self._open:
            self._selector.register(self._connection, selectors.EVENT_READ)
        elif self._open and not wanted:
            self._selector.unregister(self._connection)
        self._open = wanted

    def _pause(self) -> float | None:
        running = [child.deadline for child in self._children if not child.late]
        return max(0.0, min(running) - time.monotonic()) if running else None

    def _take(self) -> bool:
        """Starts the next job. False when there will be none."""
        message, descriptors, _, _ = socket.recv_fds(self._connection, JOB.size, 1)
        if not message:
            return False
        (job,) = JOB.unpack(message)
        server = os.getpid()
        try:
            pid = os.fork() if descriptors else -1
        except OSError:
            pid = -1
        if pid == 0:
            _child(descriptors[0], server, self._handle)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid < 0:
            self._tell(job, os.EX_TEMPFAIL)
            return True
        child = _Child(job, pid, os.pidfd_open(pid), time.monotonic() + WALL)
        self._children.append(child)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        return True

    def _reap(self, child: _Child) -> None:
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        self._children.remove(child)
        _, status = os.waitpid(child.pid, 0)
        self._tell(child.job, os.waitstatus_to_exitcode(status), child.late)

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.deadline <= now and not child.late:
                child.late = True
                send_signal(child.pidfd, signal.SIGKILL)

    def _tell(self, job: int, code: int, late: bool = False) -> None:
        self._connection.send(ENDED.pack(job, code, late))


# --- a child ----------------------------------------------------------------------------------------------------------


def _child(descriptor: int, server: int, handle: Handler) -> NoReturn:
    """One request, from its socket and back to it. Never returns."""
    code = 1
    try:
        _confine(descriptor, server)
        with socket.socket(fileno=0) as connection, connection.makefile("rwb") as stream:
            stream.write(handle(stream.read()))
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        os._exit(code)  # whatever happened: a child must never return into the server's code


def _confine(descriptor: int, server: int) -> None:
    """Leaves this process nothing but `descriptor`, as number 0, and limits that it cannot raise."""
    kernel.end_with_parent()
    if os.getppid() != server:  # it had ended before
        os._exit(1)
    os.dup2(descriptor, 0)
    kernel.close_from(1)
    for what, soft, hard in (
        (resource.RLIMIT_NOFILE, 0, 0),  # the one that is open stays; with a limit of 1 it could be closed for another
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, MEMORY, MEMORY),
        (resource.RLIMIT_CPU, CPU, CPU + 1),
    ):
        resource.setrlimit(what, (soft, hard))


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
