"""Guards a pool of workers: what its tasks have started ends with it, however the pool ends.

`guarded` divides the pool's process in two. The child goes on as the pool; the parent, `mep-guard` in `ps`, waits for
its end. The kernel makes the guard the parent of every process below it that loses its own. So all that tasks start
stays below the guard, in whatever session and with whatever environment, and nothing else is ever there.

When the pool has ended, what is left is ended as `programs` does it. When the pool asks (`end_pool`), the programs are
ended first, while the workers still read what these write, and then the pool. By the kernel the pool dies with its
guard, and workers with their pool (`die_with`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
from types import FrameType
from typing import NoReturn

from uep.workers import programs

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

TITLE = b"mep-guard"
FOR_THE_POOL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that may come to all processes of a pool, from a terminal, the manager, systemd or a batch system."""
ASK = signal.SIGUSR1


def guarded(*ends: int) -> None:
    """Goes on in a child, which this process then guards. To be called first of all, by a process without threads.

    Both ignore the signals `FOR_THE_POOL`; but those that are named `ends` end the pool, as if it had asked.

    Raises:
        OSError: there can be no other process now.
    """
    heard = {signal.SIGCHLD, ASK, *ends}
    for number in {*FOR_THE_POOL, *heard}:
        signal.signal(number, signal.SIG_DFL if number in heard else signal.SIG_IGN)
    guard = os.getpid()
    not_ours = frozenset(programs.below(guard))  # of the shell that has become this program
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    gc.freeze()  # the collector would write to what both share
    pool = os.fork()
    if pool:
        _guard(pool, not_ours, heard)
    for number in ends:
        signal.signal(number, lambda *_: end_pool())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if not die_with(guard):
        os._exit(1)


def die_with(parent: int, number: int = signal.SIGKILL) -> bool:
    """Has the kernel signal this process when the thread of its parent that started it ends; False: it has ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def end_pool() -> None:
    """Asks the guard of this pool to end what tasks have started, and then this process."""
    os.kill(os.getppid(), ASK)


def leave_signals() -> None:
    """Has this worker go on with its task when a signal comes to its whole pool; that ends it, when it is time.

    The programs that the task starts hear the signal, as do the children that it forks.
    """
    for number in FOR_THE_POOL:
        signal.signal(number, _leave)
    os.register_at_fork(after_in_child=_hear_signals)


def _leave(number: int, frame: FrameType | None) -> None:
    """Does nothing. Unlike with SIG_IGN, the programs that tasks start do not ignore the signal too."""


def _hear_signals() -> None:
    for number in FOR_THE_POOL:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _guard(pool: int, not_ours: frozenset[programs.Process], heard: set[int]) -> NoReturn:
    def ours() -> list[programs.Process]:
        return programs.below(os.getpid(), without=not_ours)

    with contextlib.suppress(PermissionError):  # one that a batch system has made the leader of a group stays there
        os.setsid()  # what kills the pool's whole group does not kill the guard
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _set_title()
    status = None
    while status is None:
        if signal.sigwait(heard) != signal.SIGCHLD:
            programs.end(lambda: [each for each in ours() if pool not in (each.pid, each.parent)])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pool, signal.SIGKILL)  # not reaped yet, so the pid is its own
        status = _reap(pool)
    programs.end(ours)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _reap(pool: int) -> int | None:
    """Waits for all that have ended, orphans of tasks too; returns the pool's status if it was among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, said = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == pool:
                status = said
    return status


def _set_title() -> None:
    """Names this process in `ps`: it is not the pool, whose command line it has."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, TITLE)
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
        words = file.read().rpartition(b")")[2].split()
    start, end = int(words[45]), int(words[46])  # where the command line is, proc(5)
    if end - start > len(TITLE):
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, TITLE, len(TITLE))
