"""Finds the processes that tasks have started, and ends them: SIGTERM, and SIGKILL `GRACE` seconds later.

A process is known by its pid and start time: a pid may be another's a moment later.
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
            for process in living:
                if left <= 0:
                    process.signal(signal.SIGKILL)
                elif not asked:
                    process.signal(signal.SIGTERM)
                    process.signal(signal.SIGCONT)  # one that is stopped would not hear the other
            asked = True
            wait(living, left if left > 0 else LOOK)


@contextlib.contextmanager
def opened(processes: Collection[Process]) -> Iterator[list[Opened]]:
    """Opens those of `processes` that live still."""
    found: list[Opened] = []
    try:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                found.append(Opened(process))
        yield [each for each in found if not each.has_ended()]
    finally:
        for each in found:
            each.close()


def wait(living: Collection[Opened], seconds: float) -> None:
    """Waits until all have ended, at most so long."""
    over = time.monotonic() + seconds
    for each in living:
        while not each.has_ended(within=over - time.monotonic()) and time.monotonic() < over:
            pass


class Opened:
    """A process that can be signalled, and no other that gets its pid.

    By a pidfd, where this Python and this kernel have it; else the start time is looked at just before.
    """

    def __init__(self, process: Process) -> None:
        """Raises ProcessLookupError: it has ended."""
        self._process = process
        self._pidfd: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(process.pid)
        if self.has_ended():
            self.close()
            raise ProcessLookupError

    def signal(self, number: int) -> None:
        """Signals it; nothing happens if it has ended, or is another user's by now."""
        with contextlib.suppress(OSError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif not self.has_ended():
                os.kill(self._process.pid, number)

    def has_ended(self, within: float = 0.0) -> bool:
        """Tells whether it has ended, or does within so many seconds, or `LOOK` at the most."""
        if within > 0 and self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(within * 1000)
        elif within > 0:
            time.sleep(min(within, LOOK))
        now = _process(self._process.pid)
        return now is None or now.started != self._process.started

    def close(self) -> None:
        """Lets go of it."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


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
