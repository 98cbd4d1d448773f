"""Connections of clients: how long a request may take to arrive and an answer to be taken, and who may have how many.

Who is slow, or hangs, or opens a thousand connections, holds up nobody else. On loopback the kernel says which account
is at the other end; beyond it only the address is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from wire.listeners import FIRST_ORDINARY_UID, accounts_of_connections

log = logging.getLogger(__name__)

HEAD_TIME = 30.0
"""Seconds for the head of a request to arrive: from the connection, or from its first byte on one in use."""
BODY_TIME = 300.0
"""Seconds for its body."""
TAKE_TIME = 120.0
"""Seconds for a client to take what is written and not taken yet: a piece of an answer (`hub.limits.PIECE_BYTES`)."""
MOST_OF_ONE_ACCOUNT = 256
"""Connections over loopback of one ordinary account."""
MOST_OF_ONE_HOST = 1024
"""Connections from one other address: as many as `mep-hub forward` takes on its host."""
MOST_CONNECTIONS = 16_384
"""Of all together, a quarter of the descriptors that the hub's unit has."""
_LOOPBACK = ("127.0.0.1", "::1")
_BETWEEN_LOOKS = 1.0


class Crowd:
    """All open connections, those of all listening sockets together."""

    def __init__(self) -> None:
        self._open: dict[HttpConnection, str] = {}
        self._of_host: Counter[str] = Counter()
        self._look: asyncio.Task[None] | None = None

    def came(self, connection: HttpConnection, host: str) -> bool:
        """Counts a new connection; False when there are too many, and it is to be closed."""
        self._open[connection] = host
        self._of_host[host] += 1
        if host in _LOOPBACK:
            if self._of_host[host] > MOST_OF_ONE_ACCOUNT and self._look is None:
                self._look = asyncio.ensure_future(self._close_what_is_too_much())
            return len(self._open) <= MOST_CONNECTIONS
        return len(self._open) <= MOST_CONNECTIONS and self._of_host[host] <= MOST_OF_ONE_HOST

    def went(self, connection: HttpConnection) -> None:
        """Forgets a connection."""
        host = self._open.pop(connection, None)
        if host is not None:
            self._of_host[host] -= 1
            if not self._of_host[host]:
                del self._of_host[host]

    async def _close_what_is_too_much(self) -> None:
        """Asks the kernel whose connections there are, for as long as one account could have too many."""
        while any(self._of_host[host] > MOST_OF_ONE_ACCOUNT for host in _LOOPBACK):
            here = {each: each.ends() for each, host in self._open.items() if host in _LOOPBACK}
            try:
                accounts = await asyncio.to_thread(accounts_of_connections, list(here.values()))
            except OSError as e:  # such as no descriptors, just when there are too many connections
                log.warning("Cannot see whose connections there are, and ask again: %s", e)
                accounts = {}
            had: Counter[int] = Counter()
            for connection, ends in here.items():
                uid = accounts.get(ends)
                if uid is None or uid < FIRST_ORDINARY_UID:
                    continue
                had[uid] += 1
                if had[uid] > MOST_OF_ONE_ACCOUNT:
                    connection.transport.abort()
            for uid, count in had.items():
                if count > MOST_OF_ONE_ACCOUNT:
                    log.warning("Closed %d connections of uid %d, which had too many", count - MOST_OF_ONE_ACCOUNT, uid)
            await asyncio.sleep(_BETWEEN_LOOKS)
        self._look = None


class HttpConnection(H11Protocol):
    """A connection that is closed when a request does not arrive, or an answer is not taken, in time."""

    def __init__(self, *args: Any, crowd: Crowd, **more: Any) -> None:
        super().__init__(*args, **more)
        self._crowd = crowd
        self._arrives: asyncio.TimerHandle | None = None
        self._arriving: Any = None
        self._taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts the connection and waits for a request."""
        super().connection_made(cast(asyncio.Transport, transport))
        if not self._crowd.came(self, self.client[0] if self.client else ""):
            self.transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._crowd.went(self)
        for timer in (self._arrives, self._taken):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handles what has arrived, and notes what is to arrive next."""
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        """Waits for the client to take what is written, for so long."""
        super().pause_writing()
        if self._taken is None:
            self._taken = self.loop.call_later(TAKE_TIME, self.transport.abort)

    def resume_writing(self) -> None:
        """It has been taken."""
        super().resume_writing()
        if self._taken is not None:
            self._taken.cancel()
            self._taken = None

    def ends(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Returns the addresses of the client and of the hub."""
        return self.client or ("", 0), self.server or ("", 0)

    def _watch(self) -> None:
        """Sets the clock anew when another part of a request is waited for than before."""
        state = self.conn.their_state
        if state is self._arriving:
            return
        self._arriving = state
        if self._arrives is not None:
            self._arrives.cancel()
            self._arrives = None
        limit = {h11.IDLE: HEAD_TIME, h11.SEND_BODY: BODY_TIME}.get(state)
        if limit is not None:
            self._arrives = self.loop.call_later(limit, self.transport.abort)
