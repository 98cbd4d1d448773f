"""The socket on which `mep status` asks how the manager is, and the answer. The worker takes the connections.

The monitor makes the socket, since the worker may not write to the run folder, and hands it to each worker that it
starts (`worker_process`). Between two of them, connections wait in the kernel.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mep.processes import named_sockets
from mep.processes.status_protocol import MOST_ANSWER, NAME

_MOST_TEXT = 8000
"""Letters of a text of the answer; fewer when there are many, and odd ones."""


class StatusSocket:
    """how_it_is: gives the answer. listening: the socket, while there is one."""

    def __init__(self, folder: Path, how_it_is: Callable[[], Mapping[str, Any]]) -> None:
        self._folder = folder
        self._how_it_is = how_it_is
        self.listening: socket.socket | None = None

    def open(self) -> None:
        """From now on connections may wait. Raises OSError."""
        self.listening = named_sockets.listen(self._folder, NAME, socket.SOCK_STREAM)

    def close(self) -> None:
        """Nobody can ask any more. May be called again."""
        if self.listening is not None:
            self.listening.close()
            self.listening = None
            (self._folder / NAME).unlink(missing_ok=True)

    def answer(self) -> bytes:
        """How the manager is now: a line of JSON, of at most MOST_ANSWER bytes."""
        said, most = self._how_it_is(), _MOST_TEXT
        while len(line := json.dumps(_cut(said, most)).encode() + b"\n") > MOST_ANSWER:
            most //= 2
        return line


def _cut(said: Any, most: int) -> Any:
    if isinstance(said, Mapping):
        return {name: _cut(value, most) for name, value in said.items()}
    return said[:most] if isinstance(said, str) else said
