"""The socket on which commands ask how the manager is, and what it tells them. The worker takes the connections.

The monitor makes the socket, since the worker may not write to the run folder, and hands it to each worker that it
starts (`worker_process`). Between two of them, connections wait in the kernel. Root may connect, and members of the
group that `status_group` of config.yaml names.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mep.processes import named_sockets
from mep.processes.status_protocol import MOST_FACTS, NAME

_MOST_TEXT = 8000
"""Letters of a text about the manager, and members of a list; fewer when there are many, and odd ones."""
_MOST_MANAGER = 2**17
"""Bytes of all that is told about the manager itself."""
_MODE, _MODE_FOR_READERS = 0o700, 0o711
"""Of the run folder: readers pass it, and list nothing."""


class StatusSocket:
    """manager: what is told of the manager itself. parts: lists of objects by name; of each, as many as fit are told.

    readers: the group whose members may ask, too. listening: the socket, while there is one.
    """

    def __init__(
        self,
        folder: Path,
        manager: Callable[[], Mapping[str, Any]],
        parts: Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]],
        readers: int | None = None,
    ) -> None:
        self._folder = folder
        self._manager = manager
        self._parts = parts
        self.readers = readers
        self.listening: socket.socket | None = None

    def open(self) -> None:
        """From now on connections may wait. Raises OSError."""
        self._folder.chmod(_MODE if self.readers is None else _MODE_FOR_READERS)
        with _of_group(self.readers):
            self.listening = named_sockets.listen(self._folder, NAME, socket.SOCK_STREAM)
        if self.readers is not None:
            (self._folder / NAME).chmod(0o660)

    def close(self) -> None:
        """Nobody can ask any more. May be called again."""
        if self.listening is not None:
            self.listening.close()
            self.listening = None
            (self._folder / NAME).unlink(missing_ok=True)

    def answer(self) -> bytes:
        """How the manager is now: JSON of at most MOST_FACTS bytes. `left_out` counts what did not fit."""
        said, most = self._manager(), _MOST_TEXT
        while len(manager := json.dumps(_cut(said, most))) > _MOST_MANAGER:
            most //= 2
        texts, left, left_out = [f'"manager": {manager}'], MOST_FACTS - len(manager) - 1000, 0
        for name, listed in self._parts.items():
            fitting = []
            for each in listed():
                text = json.dumps(each)
                if len(text) + 2 > left:
                    left_out += 1
                    continue
                left -= len(text) + 2
                fitting.append(text)
            texts.append(f'"{name}": [{", ".join(fitting)}]')
        return f'{{{", ".join(texts)}, "left_out": {left_out}}}'.encode()


@contextlib.contextmanager
def _of_group(group: int | None) -> Iterator[None]:
    """What is made meanwhile has that group. The manager may become other groups, and not give files away (chown)."""
    if group is None:
        yield
        return
    before = os.getegid()
    os.setegid(group)
    try:
        yield
    finally:
        os.setegid(before)


def _cut(said: Any, most: int) -> Any:
    if isinstance(said, Mapping):
        return {name: _cut(value, most) for name, value in said.items()}
    if isinstance(said, list):
        return [_cut(value, most) for value in said[:most]]
    return said[:most] if isinstance(said, str) else said
