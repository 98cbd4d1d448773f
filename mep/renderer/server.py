"""The render server: each request in a process of its own. A program: `python -m mep.renderer.server`.

User options are hostile until proven otherwise: a schema's pattern may backtrack for ever, a template's loop may be
driven by an option, the sandbox may have a hole. So this runs as an account that owns nothing, in two kinds of process:

  server  imports what is needed and compiles the templates of a profile, once, and forks. It handles no byte of a
          client's or of an answer, so none is in its memory, where it would live on and be inherited by the next
          child. It has given up the network.
  child   takes its limits, then reads its request, has `answer` answer it, and ends. The files in memory with request
          and answer are all it has, and it can get no other descriptor, so it opens no file and no socket, and it
          starts no process. PARALLEL run at a time.

The monitor (`monitor.stages.renderer`) is at the other end of descriptor 0; `processes.render_protocol` has the
messages.
"""

from __future__ import annotations

import mep.processes.without_libraries  # noqa: F401 - first: what comes below imports them

# isort: split
import gc
import itertools
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mep.privileged import kernel, network
from mep.privileged.memory_file import fill, seal, unsealed
from mep.processes import message
from mep.processes.message import Files
from mep.processes.pidfd import send_signal
from mep.processes.render_protocol import (
    CPU,
    DIALOGUE,
    FILES_TO_RENDERER,
    MAX_CONFIG,
    MEMORY,
    OUT_OF_MEMORY,
    PARALLEL,
    WALL,
    FromRenderer,
)
from mep.processes.sealed_file import SealedFile

Handler = Callable[[Sequence[bytes]], tuple[bool, bytes]]
"""Makes the answer to a request: whether it is granted, and what to say. May raise anything."""
Prepare = Callable[[bytes], None]
"""Does what the requests of a profile have in common; it is given the profile's file."""
_REFUSED = 4
"""The exit code of a child whose answer is a refusal."""
_SAYS = {0: FromRenderer.RENDERED, _REFUSED: FromRenderer.REFUSED}


def main() -> None:
    """Serves requests until the other end of the socket closes; the children then end with this process."""
    kernel.set_dumpable(False)  # as it is since its exec; but the kernel may have been told to dump for root
    network.forbid()
    from mep.renderer import answer

    answer.warm_up()
    try:
        with socket.socket(fileno=0) as connection:
            _Server(connection, answer.prepare, answer.answer).serve()
    except ConnectionError:
        return


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass
class _Child:
    """A child that runs, and the file that it writes. `deadline` is on the monotonic clock."""

    job: int
    answer: SealedFile
    pid: int
    pidfd: int
    deadline: float
    late: bool = False


class _Server:
    """Forks a child for each job that comes, and tells how it ended."""

    def __init__(self, connection: socket.socket, prepare: Prepare, handle: Handler) -> None:
        self._connection = connection
        self._prepare = prepare
        self._handle = handle
        self._prepared: SealedFile | None = None
        self._selector = selectors.DefaultSelector()
        self._children: list[_Child] = []
        self._open = False

    def serve(self) -> None:
        self._tell(FromRenderer.READY, 0)
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
        question = message.receive(self._connection, FILES_TO_RENDERER)
        if question is None:
            return False
        _, job, _, files = question
        self._know(files[0])
        server = os.getpid()
        try:
            answer = SealedFile(unsealed("answer"))
            pid = os.fork()
        except OSError:
            self._tell(FromRenderer.ENDED, job, code=os.EX_TEMPFAIL, late=False)
            return True
        if pid == 0:
            _child(files, answer, server, self._handle)
        child = _Child(job, answer, pid, os.pidfd_open(pid), time.monotonic() + WALL)
        self._children.append(child)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        return True

    def _know(self, profile: SealedFile) -> None:
        """Has what comes with a profile prepared once: the monitor sends the same file with all of its requests."""
        if self._prepared is None or not os.path.sameopenfile(self._prepared.descriptor, profile.descriptor):
            self._prepare(profile.read())
            self._prepared = profile
            gc.unfreeze()  # what the one before has left goes
            gc.collect()
            gc.freeze()  # what is shared with the children stays shared

    def _reap(self, child: _Child) -> None:
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        self._children.remove(child)
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        kind = None if child.late else _SAYS.get(code)
        if kind is not None and _is_whole(child.answer, DIALOGUE.files[kind][0]):
            self._tell(kind, child.job, [child.answer])
        else:
            self._tell(FromRenderer.ENDED, child.job, code=code, late=child.late)

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.deadline <= now and not child.late:
                child.late = True
                send_signal(child.pidfd, signal.SIGKILL)

    def _tell(self, kind: FromRenderer, job: int, files: Files = (), **body: object) -> None:
        message.send(self._connection, message.pack(kind, job, body), files)


def _is_whole(answer: SealedFile, most: int) -> bool:
    """Whether the file may be passed on: not too large, and sealed, since its child has ended."""
    try:
        seal(answer.descriptor)
    except OSError:  # the child has sealed something of it itself
        return False
    return answer.size <= most


# --- a child ----------------------------------------------------------------------------------------------------------


def _child(files: Files, answer: SealedFile, server: int, handle: Handler) -> NoReturn:
    """One request, from its files to that of its answer. Never returns."""
    code = 1
    try:
        _confine(sorted(file.descriptor for file in (*files, answer)), server)
        granted, text = handle([file.read() for file in files])
        fill(answer.descriptor, text)
        code = 0 if granted else _REFUSED
    except MemoryError:
        code = OUT_OF_MEMORY
    finally:
        os._exit(code)  # whatever happened: a child must never return into the server's code


def _confine(descriptors: Sequence[int], server: int) -> None:
    """Leaves this process nothing but these descriptors, in their order, and limits that it cannot raise."""
    kernel.end_with_parent()
    if os.getppid() != server:  # it had ended before
        os._exit(1)
    for before, after in itertools.pairwise([-1, *descriptors]):
        os.closerange(before + 1, after)
    kernel.close_from(descriptors[-1] + 1)
    for what, soft, hard in (
        (resource.RLIMIT_NOFILE, 0, 0),  # what is open stays
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_FSIZE, 4 * MAX_CONFIG, 4 * MAX_CONFIG),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, MEMORY, MEMORY),
        (resource.RLIMIT_CPU, CPU, CPU + 1),
    ):
        resource.setrlimit(what, (soft, hard))


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
