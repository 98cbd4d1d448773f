"""Sends the results of one session with the broker, a bounded number at a time.

`outbox` makes a `Courier` for each session, and gives it the task ids whose results are to be sent. The courier asks
for a result when it is that result's turn: however much has piled up on disk, little of it is in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from wire.errors import ConnectionLost, TooLarge
from wire.publisher import Publisher
from wire.queues import Target

log = logging.getLogger(__name__)

MOST_SENT = 1000
"""Results that wait for their confirms at a time."""
MOST_BYTES_SENT = 32 << 20
"""Bytes of the results that wait for their confirms; one result more than that may be on its way."""
AGAIN = 30.0
"""Seconds after which a result that the broker refused is sent again."""


class Courier:
    """Sends results through `publisher`, and tells which the broker has confirmed.

    Args:
        fetch: gives a task's packed result, or None when it is not to be sent now.
        confirm: is called with each task whose result the broker has confirmed.
        replace: is called with a task whose result the broker does not take, its size, and the most that it takes.
    """

    def __init__(
        self,
        publisher: Publisher,
        target: Target,
        fetch: Callable[[str], Awaitable[bytes | None]],
        confirm: Callable[[str], None],
        replace: Callable[[str, int, int], None],
    ) -> None:
        self._publisher = publisher
        self._target = target
        self._fetch = fetch
        self._confirm = confirm
        self._replace = replace
        self._waiting: deque[str] = deque()
        self._sent: dict[str, int] = {}
        self._bytes_sent = 0
        self._wake = asyncio.Event()
        self._sending = asyncio.ensure_future(self._send_waiting())

    def take(self, task_id: str, packed: bytes | None = None) -> None:
        """Sends the result, now when it is at hand and there is room, otherwise when it is its turn."""
        if packed is not None and not self._waiting and self._has_room():
            self._send(task_id, packed)
        else:
            self._waiting.append(task_id)
            self._wake.set()

    def stop(self) -> None:
        """Sends no more."""
        self._sending.cancel()
        self._waiting.clear()

    def _has_room(self) -> bool:
        return len(self._sent) < MOST_SENT and self._bytes_sent < MOST_BYTES_SENT

    async def _send_waiting(self) -> None:
        while True:
            while self._waiting and self._has_room():
                task_id = self._waiting.popleft()
                packed = await self._fetch(task_id)
                if packed is not None:
                    self._send(task_id, packed)
            self._wake.clear()
            await self._wake.wait()

    def _send(self, task_id: str, packed: bytes) -> None:
        if task_id in self._sent:
            return
        self._sent[task_id] = len(packed)
        self._bytes_sent += len(packed)
        self._publisher.send(self._target, packed).add_done_callback(lambda f: self._answered(task_id, f))

    def _answered(self, task_id: str, confirmed: asyncio.Future[None]) -> None:
        size = self._sent.pop(task_id)
        self._bytes_sent -= size
        self._wake.set()
        error = None if confirmed.cancelled() else confirmed.exception()
        if isinstance(error, TooLarge) and size > error.limit:
            self._replace(task_id, size, error.limit)
            return
        if confirmed.cancelled() or isinstance(error, ConnectionLost):
            return  # the next session sends it again
        if error is not None:
            log.error("result of task %s not taken by the broker, sent again in %g s: %s", task_id, AGAIN, error)
            asyncio.get_running_loop().call_later(AGAIN, self.take, task_id)
            return
        self._confirm(task_id)
