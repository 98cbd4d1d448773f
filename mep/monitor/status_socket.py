"""The socket in the run folder on which a manager says how it is: `mep status` and `mep list` ask there.

One line of JSON is asked, one is answered, then the connection ends:

    {"ask": "status"}   ->   {"pid": 42, "endpoint": ID, "status": {"connection": "connected", ...}, "line": "..."}
    anything else       ->   {"error": "..."}

Only root and the manager's own account may ask; the kernel says who does. Nobody who is slow at it holds up the
manager: a connection has TIME seconds, a question MAX_QUESTION bytes, and there are MOST connections at a time.
A manager that stands still takes connections, since the kernel does, and answers nothing: `ask` then says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mep.processes.time_limit import within

NAME = "status.sock"
TIME = 5.0
"""Seconds for a question and its answer, on both sides."""
MAX_QUESTION = 4096
MAX_ANSWER = 1 << 16
MOST = 8

_CREDENTIALS = struct.Struct("3i")
"""Pid, uid, gid (SO_PEERCRED, unix(7))."""


class NoAnswer(Exception):
    """The manager does not answer within the time: it hangs, or stands still."""


class StatusSocket:
    """Answers in the event loop. answer: called for each question about the status."""

    def __init__(self, folder: Path, answer: Callable[[], Mapping[str, Any]]) -> None:
        self._folder = folder
        self._answer = answer
        self._server: asyncio.AbstractServer | None = None
        self._connections = 0

    async def open(self) -> None:
        """Begins to answer. Only for who holds the lock of the folder. Raises OSError."""
        (self._folder / NAME).unlink(missing_ok=True)  # of a manager that was killed
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(self._folder) as path:
                listening.bind(path)
            (self._folder / NAME).chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_QUESTION)
        except BaseException:
            listening.close()
            raise

    def close(self) -> None:
        """Answers no more. Connections that are there end by themselves, or with the loop."""
        if self._server is not None:
            self._server.close()
            self._server = None
            (self._folder / NAME).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MOST and _may_ask(writer.get_extra_info("socket")):
                writer.transport.set_write_buffer_limits(0)  # `drain` waits until all is in the kernel
                await within(TIME, self._exchange(reader, writer))
        except (OSError, ValueError, asyncio.TimeoutError):  # it has gone, is slow, or sends no end of a line
            pass
        finally:
            self._connections -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self._answer_to(await reader.readline())
        writer.write(json.dumps(answer).encode()[: MAX_ANSWER - 1] + b"\n")
        await writer.drain()

    def _answer_to(self, question: bytes) -> Mapping[str, Any]:
        try:
            asked = json.loads(question)
        except (ValueError, RecursionError):
            return {"error": "not JSON"}
        if asked != {"ask": "status"}:
            return {"error": "unknown question"}
        return self._answer()


def ask(folder: Path, within: float = TIME) -> dict[str, Any] | None:
    """What the manager says of itself; None while it has no socket: it begins, or ends.

    Raises:
        NoAnswer: it does not answer within that many seconds, or not in a way that can be understood.
        PermissionError: only root may ask.
    """
    try:
        with _short(folder) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within)
            connection.connect(path)
            connection.sendall(b'{"ask": "status"}\n')
            said = _read(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (TimeoutError, BlockingIOError):  # the second: so many wait already that there is no place to wait
        raise NoAnswer(f"does not answer within {within:g} s") from None
    except ConnectionError as e:
        raise NoAnswer(f"does not answer: {e.strerror}") from None
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("line"), str):
        raise NoAnswer("gives an answer that cannot be understood")
    return answer


def _read(connection: socket.socket) -> bytes:
    """All that comes until its end; a manager's answer is short, and comes at once."""
    said = b""
    while len(said) <= MAX_ANSWER and (more := connection.recv(MAX_ANSWER)):
        said += more
    return said


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path of the socket that is short enough for one (unix(7)), however long the folder's is. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)


def _may_ask(connection: socket.socket) -> bool:
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in (0, os.geteuid())
