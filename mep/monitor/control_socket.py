"""The socket in the run folder on which requests that act come: `mep reload`. What only reads asks the worker.

Only root and the manager's own account may ask; the kernel says who does, and whoever is let in is told to `act` with
the request. A connection has one request, of one size (`processes.control_protocol`), and one answer. One that makes no
sense, says more than one, or is silent for PATIENCE seconds, is ended, and costs nobody else anything: there are MOST,
and one that is silent makes way for others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from mep.processes import named_sockets
from mep.processes.control_protocol import NAME, REQUEST_SIZE, Outcome, Request, read_request, write_answer
from mep.processes.named_sockets import Peer

log = logging.getLogger(__name__)

MOST = 16
"""Connections. The next ones wait in the kernel."""
PATIENCE = 5.0
"""Seconds for a request to come; PAUSE, while others wait to be let in."""
PAUSE = 0.5
"""Seconds until connections are accepted again when there were too many, or no descriptor for one."""

Answer = Callable[[Outcome, str], None]
Act = Callable[[Request, Peer, Answer], None]


class ControlSocket:
    """Listens in the event loop. act: called with each request, who asks, and what is to be told the outcome."""

    def __init__(self, folder: Path, act: Act) -> None:
        self._folder = folder
        self._act = act
        self._listening: socket.socket | None = None
        self._callers: list[_Caller] = []
        self._later: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begins to listen. Raises OSError."""
        self._listening = named_sockets.listen(self._folder, NAME, socket.SOCK_SEQPACKET)
        self._accept_more()

    def close(self) -> None:
        """Listens no more, and ends the connections that there are. May be called again."""
        if self._listening is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening)
        if self._later is not None:
            self._later.cancel()
        self._listening.close()
        self._listening = None
        (self._folder / NAME).unlink(missing_ok=True)
        for caller in list(self._callers):
            caller.end()

    def _accept_more(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._later = loop.call_later(PAUSE, self._accept_more)

    def _accept(self, listening: socket.socket) -> None:
        """One connection at a time: everything else has its turn in between."""
        if len(self._callers) >= MOST:
            silent = next((caller for caller in self._callers if caller.is_silent()), None)
            if silent is None:
                self._pause(listening)
                return
            silent.end()
        try:
            connection, _ = listening.accept()
            peer = named_sockets.peer(connection)
        except (BlockingIOError, ConnectionError):
            return
        except OSError as e:
            log.error("a request to this manager cannot be accepted: %s", e)
            self._pause(listening)
            return
        if peer.uid not in (0, os.geteuid()):
            log.warning("uid %d (pid %d) may not ask anything of this manager", peer.uid, peer.pid)
            connection.close()
            return
        self._callers.append(_Caller(connection, peer, self._act, self._callers.remove))


class _Caller:
    """A connection. gone: told once it has been ended."""

    def __init__(self, connection: socket.socket, peer: Peer, act: Act, gone: Callable[[_Caller], None]) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._peer = peer
        self._act = act
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._patience = self._loop.call_later(PATIENCE, self.end)
        self._loop.add_reader(connection, self._read)
        self._has_asked = False

    def is_silent(self) -> bool:
        """Whether it has not asked for so long that it makes way for others."""
        return not self._has_asked and self._loop.time() - self._since > PAUSE

    def end(self) -> None:
        """Closes the connection. May be called again."""
        if self._connection.fileno() >= 0:
            self._patience.cancel()
            self._loop.remove_reader(self._connection)
            self._connection.close()
            self._gone(self)

    def _read(self) -> None:
        try:
            data = self._connection.recv(REQUEST_SIZE + 1)  # descriptors that come with it are closed by the kernel
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._has_asked:
            self.end()
            return
        self._has_asked = True
        self._patience.cancel()
        try:
            request = read_request(data)
        except ValueError as e:
            log.warning("uid %d (pid %d) has asked what makes no sense: %s", self._peer.uid, self._peer.pid, e)
            self._answer(0, Outcome.SENSELESS, str(e))
            return
        self._act(request, self._peer, lambda outcome, text: self._answer(request.number, outcome, text))

    def _answer(self, number: int, outcome: Outcome, text: str) -> None:
        """Whoever has gone meanwhile is not told."""
        if self._connection.fileno() < 0:
            return
        try:
            self._connection.send(write_answer(outcome, number, text))
        except OSError as e:
            log.info("pid %d cannot be answered: %s", self._peer.pid, e)
        self.end()
