"""Work in the event loop that nobody waits for at the moment: notices, revivals, the end of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Background:
    """Keeps tasks until they are done: the event loop itself does not. The work handles its own errors."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Begins the work; returns at once."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def give_up(self) -> None:
        """Cancels what is under way."""
        for task in self._tasks:
            task.cancel()

    async def finish(self, timeout: float) -> None:
        """Waits for what is under way; what takes longer than `timeout` seconds is cancelled."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
