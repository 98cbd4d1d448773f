"""Forks the workers of a process pool: the program `python .../pool_program.py FD`.

The program loads the SDK once: a worker forked from it is ready in a millisecond and shares that memory. FD is a socket
to the endpoint. There each byte that comes brings a descriptor, the socket of a new worker; the answer is a line:
empty, with descriptors for the worker's process (pidfd) and of a pipe, or why there is none. Into the pipe goes the
wait status of the worker when it has ended, as a number. The program ends with the endpoint,
however that ends; the kernel ends all workers with the program, and its guard (`guard`) what tasks have started.

On a worker's socket each message is its length, 8 bytes, and the message: pickled arguments of
`uep.workers.execution.execute_task` in, the packed result out.

`uep.engines.pool_worker` runs this file, by the Python that the tasks are to have.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

if "uep" not in sys.modules:  # ours, installed for this Python or not, whatever else has that name
    sys.modules["uep"] = ModuleType("uep")
    sys.modules["uep"].__path__ = [str(Path(__file__).resolve().parents[1])]
from uep.workers import guard

_LENGTH = struct.Struct("!Q")
_FD = struct.Struct("i")
_pipes: dict[int, int] = {}
"""By process id of a worker: where its wait status is to be written."""


def main() -> None:
    """Forks a worker for each request, until the endpoint closes the socket or ends; the guard then ends it."""
    guard.guarded()
    from uep.workers import execution

    signal.signal(signal.SIGCHLD, _reap)
    execution.get_ready()
    gc.collect()
    gc.freeze()  # the collector would write to what all workers share
    with socket.socket(fileno=int(sys.argv[1])) as endpoint:
        endpoint.set_inheritable(False)
        while descriptors := receive_descriptors(endpoint)[1]:
            with socket.socket(fileno=descriptors[0]) as theirs:
                _fork(endpoint, theirs, execution.execute_task)
    guard.end_pool()
    while True:
        signal.pause()


def _fork(endpoint: socket.socket, theirs: socket.socket, execute_task: Callable[..., bytes]) -> None:
    program = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # not reaped before its descriptor is open
    try:
        said, says = os.pipe()
        pid = os.fork()
        if pid == 0:
            endpoint.close()
            for descriptor in (said, says, *_pipes.values()):
                os.close(descriptor)
            _be_worker(theirs, program, execute_task)
        _pipes[pid] = says
        process = os.pidfd_open(pid)
    except OSError as e:
        endpoint.sendall(f"{e.strerror}\n".encode())
    else:
        socket.send_fds(endpoint, [b"\n"], [process, said])
        os.close(process)
        os.close(said)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _be_worker(theirs: socket.socket, program: int, execute_task: Callable[..., bytes]) -> None:
    """Serves tasks in the forked process; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        guard.leave_signals()
        os.register_at_fork(after_in_child=theirs.close)  # or it would be open when the worker has died
        if guard.die_with(program):
            serve(theirs, execute_task)
        code = 0
    finally:
        os._exit(code)


def serve(endpoint: socket.socket, execute_task: Callable[..., bytes]) -> None:
    """Runs the tasks that come until the endpoint closes the socket."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            body, task_id, endpoint_id, options = pickle.loads(receive(endpoint))  # noqa: S301 - from our endpoint
            send(endpoint, execute_task(body, task_id, endpoint_id, **options))


def receive_descriptors(source: socket.socket) -> tuple[str, list[int]]:
    """Receives text and descriptors, which programs of tasks do not inherit.

    Raises:
        OSError: the socket is broken, or nothing came in time.
    """
    said, ancillary, _, _ = source.recvmsg(200, socket.CMSG_LEN(2 * _FD.size), socket.MSG_CMSG_CLOEXEC)
    received = b"".join(data for level, kind, data in ancillary if kind == socket.SCM_RIGHTS)
    return said.decode().strip(), [number for (number,) in _FD.iter_unpack(received)]


def send(to: socket.socket, body: bytes) -> None:
    """Sends one message.

    Raises:
        OSError: the other side has ended, or stands still.
    """
    to.sendall(message(body))


def message(body: bytes) -> bytes:
    """Makes a message of what is to be sent."""
    return _LENGTH.pack(len(body)) + body


def whole_message(received: bytearray) -> bytes | None:
    """Takes the message out of what has been received, once it is all there."""
    if len(received) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
    return bytes(received[_LENGTH.size : end]) if len(received) >= end else None


def receive(source: socket.socket) -> bytes:
    """Receives one message.

    Raises:
        EOFError: the other side has closed the socket, or ended.
        OSError: the socket is broken, or the other side stands still.
    """
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    return bytes(_exactly(source, length))


def _exactly(source: socket.socket, length: int) -> bytearray:
    received = bytearray(length)
    left = memoryview(received)
    while left:
        size = source.recv_into(left)
        if size == 0:
            raise EOFError
        left = left[size:]
    return received


def _reap(number: int, frame: FrameType | None) -> Any:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in _pipes:
                says = _pipes.pop(pid)
                with contextlib.suppress(OSError):  # nobody listens any more
                    os.write(says, str(status).encode())
                os.close(says)


if __name__ == "__main__":
    main()
