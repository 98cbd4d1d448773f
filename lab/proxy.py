"""A TCP proxy on loopback that plays a bad network.

    with Proxy(broker.port) as network:
        ...  127.0.0.1:network.port
        network.cut()      every connection is reset, on both sides, and so are new ones
        network.stall()    whatever is sent disappears, and nobody is told; also on new connections
        network.resume()   new connections work again; those that were stalled never do

It runs in a thread of its own, with an asyncio loop; its methods may be called from any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s: close sends a reset
_CHUNK = 1 << 16


class Proxy:
    """A context manager. `port` is known from the start; `connections` counts those forwarded so far."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        """Forwards to `target_port` of 127.0.0.1, from `port` or a free one."""
        self.connections = 0
        self._target_port = target_port
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listening.getsockname()[1]
        self._mode: Literal["forward", "cut", "stall"] = "forward"
        self._open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._call(self._stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Resets what is connected and what tries to, until `resume`."""
        self._call(lambda: self._set("cut"))

    def stall(self) -> None:
        """Swallows everything from now on, until `resume`."""
        self._call(lambda: self._set("stall"))

    def resume(self) -> None:
        """Forwards new connections again."""
        self._call(lambda: self._set("forward"))

    def _call(self, function: Callable[[], None]) -> None:
        """Calls it in the loop's thread, and waits for its end."""

        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listening))
        self._loop.run_forever()
        self._loop.run_until_complete(self._end_tasks())

    def _stop(self) -> None:
        self._server.close()
        self._set("cut")
        self._loop.stop()

    async def _end_tasks(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _set(self, mode: Literal["forward", "cut", "stall"]) -> None:
        self._mode = mode
        for connection in list(self._open):
            if mode == "cut":
                connection.reset()
            elif mode == "stall":
                connection.swallows = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._open.add(connection)
        try:
            if self._mode == "cut":
                connection.reset()
            elif self._mode == "stall":
                connection.swallows = True
                await connection.forward(reader, None)
            else:
                self.connections += 1
                await self._forward(connection, reader, writer)
        except OSError:
            connection.reset()
        finally:
            self._open.discard(connection)
            writer.close()  # also after a stall, of which nobody was told: the client has closed its side

    async def _forward(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        connection.writers.append(back)
        await asyncio.gather(connection.forward(reader, back), connection.forward(there, writer))


class _Connection:
    """Both sides of one connection. What comes is thrown away once `swallows` is set."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.swallows = False

    def reset(self) -> None:
        for writer in self.writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def forward(self, source: asyncio.StreamReader, to: asyncio.StreamWriter | None) -> None:
        """Until the source ends; the other side is told, unless that is swallowed too."""
        try:
            while data := await source.read(_CHUNK):
                if to is not None and not self.swallows:
                    to.write(data)
                    await to.drain()
        except OSError:
            if not self.swallows:
                self.reset()
        else:
            if to is not None and not self.swallows:
                to.close()
            elif to is not None:
                await asyncio.Event().wait()
