"""The program: `python -I -m mep.exporter.server SOCKET`, started by systemd with a socket that listens.

Whoever connects gets what the worker answers to `GET /metrics` on SOCKET, and nothing else of what can be asked there:
what is asked of the worker is always the same, and nothing of the question is passed on. A connection has TIME seconds;
there are MOST at a time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from mep.processes.status_protocol import TIME
from mep.processes.time_limit import within

MOST = 8
"""As many as the worker takes of one account; who comes then is closed without an answer."""
MOST_REQUEST = 8192
_FIRST = 3
"""The descriptor that systemd hands over (sd_listen_fds(3))."""
_QUESTION = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
_CHUNK = 65536


def main() -> None:
    """Serves until it is ended."""
    if len(sys.argv) != 2 or os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("mep.exporter.server: to be started by systemd, see mep-metrics@.service", file=sys.stderr)
        sys.exit(os.EX_USAGE)
    asyncio.run(_serve(socket.socket(fileno=_FIRST), sys.argv[1]))


async def _serve(listening: socket.socket, path: str) -> None:
    free = asyncio.Semaphore(MOST)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not free.locked():
                async with free:
                    await within(TIME, _exchange(reader, writer, path))
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):  # it has gone, or is slow
            pass
        finally:
            writer.transport.abort()  # whoever does not read keeps nothing here

    server = await asyncio.start_server(connected, sock=listening, limit=MOST_REQUEST)
    await server.serve_forever()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    """Returns when the answer has been passed on. Raises OSError, EOFError, LimitOverrunError."""
    await _answer(reader, writer, path)
    writer.close()
    await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    """Raises OSError, EOFError, LimitOverrunError."""
    asked = await reader.readuntil(b"\r\n\r\n")
    if asked.split(b" ", 2)[:2] != [b"GET", b"/metrics"]:
        await _refuse(writer, b"404 Not Found", b"there is only /metrics, to GET")
        return
    try:
        from_worker, to_worker = await asyncio.open_unix_connection(path)
    except OSError:
        await _refuse(writer, b"503 Service Unavailable", b"no manager runs, or it may not be asked: see status_group")
        return
    try:
        to_worker.write(_QUESTION)
        while part := await from_worker.read(_CHUNK):
            writer.write(part)
            await writer.drain()
    finally:
        to_worker.close()


async def _refuse(writer: asyncio.StreamWriter, status: bytes, why: bytes) -> None:
    head = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (status, len(why) + 1) + why + b"\n")
    await writer.drain()


if __name__ == "__main__":
    main()
