"""Who guesses at a client's secret gets few guesses a minute; the client itself goes on logging in.

Wrong secrets are counted for each client and source: on loopback that is an account, which the kernel names, else an
address. A source that has guessed too often is refused, with the right secret, too, so that it learns nothing. Guesses
from many sources together close a client to sources from which it has not logged in before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from starlette.requests import Request

from hub.web import TooMany
from wire.listeners import account_of_connection

MOST_OF_ONE_SOURCE = 10
"""Wrong secrets of one client in a minute from one source."""
MOST_OF_ALL = 60
"""Wrong secrets of one client in a minute from all sources."""
_MOST_REMEMBERED = 100_000
_LOOPBACK = ("127.0.0.1", "::1")


class Guesses:
    """Belongs to the event loop. Client ids that do not exist are not counted: nothing can be guessed of them."""

    def __init__(self) -> None:
        self._until = 0.0
        self._wrong: Counter[tuple[str, str]] = Counter()
        self._all: Counter[str] = Counter()
        self._good: dict[tuple[str, str], None] = {}

    async def check(self, request: Request, client_id: str, *, right: bool) -> None:
        """Counts a secret of a client that exists, which was right or not.

        Raises:
            TooMany: there were too many wrong ones.
        """
        if time.monotonic() > self._until:
            self._until = time.monotonic() + 60
            self._wrong.clear()
            self._all.clear()
        key = client_id, await _source(request.scope)
        if self._wrong[key] >= MOST_OF_ONE_SOURCE or (self._all[client_id] >= MOST_OF_ALL and key not in self._good):
            raise TooMany("Too many wrong secrets of this client were sent; try again in a minute")
        if right:
            self._good.pop(key, None)
            self._good[key] = None
            if len(self._good) > _MOST_REMEMBERED:
                del self._good[next(iter(self._good))]
        else:
            self._wrong[key] += 1
            self._all[client_id] += 1


async def _source(scope: Any) -> str:
    """Names who asks."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server or client[0] not in _LOOPBACK:
        return str(client and client[0])
    return f"uid {await asyncio.to_thread(account_of_connection, tuple(client), tuple(server))}"
