"""Finds the processes that tasks have started, and ends them: SIGTERM, and SIGKILL `GRACE` seconds later.

A process is named by its pid and start time, and signalled by a pidfd: a pid may be another's a moment later.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

GRACE = 8.0
"""Seconds that programs have to end, or to write down how far they are, once they are asked to."""
KILLING = 2.0
"""Seconds for what has been killed to be gone."""
ENDING = GRACE + KILLING + 2.0
"""Seconds after which `end` is over, in another process."""
LOOK = 0.1
"""Seconds between two looks at what is being killed: it may have started others."""


class Process(NamedTuple):
    """A process that lives."""

    pid: int
    parent: int
    session: int
    started: str


def all_processes() -> list[Process]:
    """Lists the processes of this machine; the dead that nobody has waited for are not among them."""
    found = (_process(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return [process for process in found if process is not None]


def below(*roots: int, without: Collection[Process] = ()) -> list[Process]:
    """Lists the processes that `roots` have started, and these in turn; not `without`, nor what those have started."""
    children: dict[int, list[Process]] = {}
    for process in all_processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = list(roots)
    while todo:
        new = [process for process in children.pop(todo.pop(), []) if process not in without]
        found += new
        todo += [process.pid for process in new]
    return found


def end(find: Callable[[], Collection[Process]]) -> None:
    """Ends what `find` finds: all are asked to end, once, and what is there when `GRACE` is over is killed.

    What has been started meanwhile, by a program that is just ending perhaps, is not asked but waited for.
    """
    over, asked = time.monotonic() + GRACE, False
    while (left := over - time.monotonic()) > -KILLING:
        with opened(find()) as living:
            if not living:
                return
            if left <= 0:
                _signal(living, signal.SIGKILL)
            elif not asked:
                asked = True
                _signal(living, signal.SIGTERM, signal.SIGCONT)  # one that is stopped does not hear the first
            wait(living, left if left > 0 else LOOK)


@contextlib.contextmanager
def opened(processes: Collection[Process]) -> Iterator[list[int]]:
    """Opens a pidfd for each of `processes` that lives still."""
    pidfds: list[int] = []
    try:
        for process in processes:
            with contextlib.suppress(OSError):
                pidfds.append(os.pidfd_open(process.pid))
                now = _process(process.pid)
                if now is None or now.started != process.started:
                    os.close(pidfds.pop())
        yield pidfds
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def wait(pidfds: Collection[int], seconds: float) -> None:
    """Waits until all have ended, at most so long."""
    until, living = time.monotonic() + seconds, set(pidfds)
    poll = select.poll()
    for pidfd in living:
        poll.register(pidfd, select.POLLIN)
    while living and (left := until - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(left * 1000):
            poll.unregister(pidfd)
            living.remove(pidfd)


def _signal(pidfds: Collection[int], *numbers: int) -> None:
    for pidfd in pidfds:
        for number in numbers:
            with contextlib.suppress(OSError):  # it has ended, or is another user's by now
                signal.pidfd_send_signal(pidfd, number)


def _process(pid: int) -> Process | None:
    """Looks at one process; None when it does not live."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - for each process there is
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if words[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(words[1]), int(words[3]), words[19].decode())
