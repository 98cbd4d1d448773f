"""Has something done by a fresh Python program with our own rights: `await run("mep.daemon.anew", question, 60)`.

A program that is executed has nothing of this process's memory, and what it loads goes with it. Its question is a
sealed file on its descriptor 0, its answer comes through a pipe on descriptor 3; both are plain values (pickle), since
both sides are ours, with the same rights. What strangers wrote never comes this way: `forked.ask` and `helper` are for
that. Secrets, which we only pass on, come and go in files in memory, on descriptor 4 and those after it.
"""

from __future__ import annotations

import fcntl
import functools
import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from mep.privileged import kernel
from mep.privileged.memory_file import fill
from mep.processes import forked
from mep.processes.sealed_file import SealedFile

ANSWER = 3
"""The descriptor of the answer, in the program."""
FILES = 4
"""The descriptor of the first file in memory, in the program."""
_ARGUMENTS = ("-I", "-m")
_HIGH = 64
"""Descriptors from here on are in nobody's way while others get their numbers."""


async def run(module: str, question: object, within: float, files: Sequence[int] = ()) -> Any:
    """What `module` answers, or raises. It is killed when this is cancelled, and ends with us.

    files: descriptors that it has besides.

    Raises:
        GivenUp: it took longer than `within` seconds; it may hang in a file system.
        ChildLost: it ended without an answer.
        OSError: no process, memory or descriptor to be had.
    """
    asked = SealedFile.of(pickle.dumps(question))
    try:
        return forked.opened(
            await forked.answer_of(functools.partial(_spawn, module, [asked.descriptor, *files]), within)
        )
    finally:
        asked.close()


def start(module: str, connection: int, *arguments: str) -> tuple[int, int]:
    """A program that may outlive us, with `connection` as its descriptor 0; its pid and pidfd. Raises OSError."""
    pid = _execute(module, {connection: 0}, *arguments)
    return pid, forked.pidfd_of(pid)


def _spawn(module: str, files: Sequence[int], writing: int) -> int:
    numbers = [0, *range(FILES, FILES + len(files) - 1)]
    return _execute(module, {**dict(zip(files, numbers, strict=True)), writing: ANSWER})


def _execute(module: str, moved: Mapping[int, int], *arguments: str) -> int:
    """The pid of `module`, executed with these descriptors of ours under other numbers, and no others."""
    program = [sys.executable, *_ARGUMENTS, module, str(os.getpid()), *arguments]
    moves = []
    try:
        for ours, number in moved.items():
            moves.append((os.POSIX_SPAWN_DUP2, fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _HIGH), number))
        return os.posix_spawn(program[0], program, os.environ, file_actions=moves, setsigmask=[], setsigdef=_handled())
    finally:
        for _, descriptor, _ in moves:
            os.close(descriptor)


def _handled() -> list[signal.Signals]:
    """What does not do in us what it does by default."""
    return [number for number in signal.valid_signals() if signal.getsignal(number) != signal.SIG_DFL]


def answer(work: Callable[[Any], object]) -> NoReturn:
    """In the program: does the work with what was asked, and answers. argv has the pid of who asked."""
    kernel.end_with_parent()
    if os.getppid() != int(sys.argv[1]):
        os._exit(os.EX_TEMPFAIL)
    kernel.set_dumpable(False)
    with open(0, "rb", closefd=False) as asked:
        question = pickle.load(asked)  # noqa: S301 - of our own parent
    fill(ANSWER, forked.pickled(lambda: work(question)))
    os._exit(os.EX_OK)
