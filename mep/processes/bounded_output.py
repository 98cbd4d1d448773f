"""What a program writes into a pipe, read in the event loop of the monitor, up to a limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import TracebackType


class BoundedOutput:
    """A pipe, open while this is entered. Whoever starts the program passes `writing` on, and closes it with `started`.

    overflow: done once more than the limit has come; then nothing more is read.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = b""

    def __enter__(self) -> BoundedOutput:
        loop = asyncio.get_running_loop()
        self.overflow: asyncio.Future[None] = loop.create_future()
        with contextlib.ExitStack() as undo:
            self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self._reading)
            undo.callback(os.close, self.writing)
            os.set_blocking(self._reading, False)
            loop.add_reader(self._reading, self._read)
            undo.pop_all()
        return self

    def __exit__(self, _type: type[BaseException] | None, _e: BaseException | None, _at: TracebackType | None) -> None:
        self.started()
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)

    def started(self) -> None:
        """Closes our copy of the writing end, so that the program's is the only one. May be called again."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def rest(self) -> bytes:
        """All that was written, with what is still in the pipe; whoever else may still write is not waited for."""
        while self._read():
            pass
        return self._data

    def _read(self) -> bool:
        """Takes some of what is there. False when there is nothing, nothing will come, or it is too much."""
        try:
            more = b"" if self.overflow.done() else os.read(self._reading, 2**16)
        except BlockingIOError:
            return False
        self._data += more
        if len(self._data) > self._limit and not self.overflow.done():
            self.overflow.set_result(None)
        if not more or self.overflow.done():
            asyncio.get_running_loop().remove_reader(self._reading)
            return False
        return True
