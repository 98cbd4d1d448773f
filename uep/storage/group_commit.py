"""Has work on a disk done beside the loop, in groups: a sync costs about the same for one thing as for a hundred.

`inbox` has accepted tasks noted so, `outbox` has results stored and removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


class GroupCommit(Generic[T, R]):
    """Does things in a thread of its own, in groups: those that came while the last group was being done.

    `work` is called in that thread with a list of things in the order they came, and must not raise; `done` then in
    the loop with the same list and what `work` returned. Make it in the loop.
    """

    def __init__(self, name: str, work: Callable[[list[T]], R], done: Callable[[list[T], R], None]) -> None:
        self._work = work
        self._done = done
        self._loop = asyncio.get_running_loop()
        # Not the loop's own threads: those are waited for at the end, and a disk may hang.
        self._thread = ThreadPoolExecutor(1, name)
        self._thread.submit(int)  # starts it now: later a task may have used up what processes and threads there may be
        self._things: list[T] = []
        self._busy = False

    def add(self, *things: T) -> None:
        """Has things done with the next group, at once when there is none under way."""
        self._things.extend(things)
        if not self._busy:
            self._next()

    def run(self, function: Callable[..., S], *args: object) -> Awaitable[S]:
        """Calls `function` in the thread of the groups."""
        return self._loop.run_in_executor(self._thread, function, *args)

    def _next(self) -> None:
        group, self._things = self._things, []
        self._busy = bool(group)
        if group:
            working = self._loop.run_in_executor(self._thread, self._work, group)
            working.add_done_callback(lambda worked: self._finish(group, worked))

    def _finish(self, group: list[T], worked: asyncio.Future[R]) -> None:
        try:
            self._done(group, worked.result())
        finally:
            self._next()
