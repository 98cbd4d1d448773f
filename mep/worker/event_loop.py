"""The worker's event loop: a look-up of a host name that hangs holds up no other one.

asyncio would keep a pool of a few threads for host names: hosts of failure notices, which commands name, could take all
of them. An address needs no look-up; for a name a thread lives as long as the look-up, at each new connection.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any


class EventLoop(asyncio.SelectorEventLoop):
    """A selector loop whose `getaddrinfo` uses a thread for each look-up, and none for addresses."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        try:
            return socket.getaddrinfo(host, port, **{**options, "flags": socket.AI_NUMERICHOST})
        except socket.gaierror:
            return await self._look_up(host, port, options)

    async def _look_up(self, host: Any, port: Any, options: dict[str, Any]) -> Any:
        answer: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                found, error = socket.getaddrinfo(host, port, **options), None
            except OSError as e:
                found, error = None, e
            self.call_soon_threadsafe(lambda: _settle(answer, found, error))

        threading.Thread(target=work, daemon=True).start()
        return await answer


def _settle(answer: asyncio.Future[Any], found: Any, error: OSError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(found)
    else:
        answer.set_exception(error)
