"""The log of a user endpoint, read as its user: the file, and all on the way to it, is the user's to make.

`read` runs this file as a program, as the account. What comes back is a stranger's text, too: the user may steer a
process of that account. So it is bounded, and made printable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mep.cli import as_account
from mep.processes.printable import escaped
from mep.processes.supervised import NotStarted
from mep.request.account import Account

TIME_LIMIT = 20.0
"""Seconds in which a home must answer: for all lines, since its owner may let them drip."""
_MOST = 2**20
"""Bytes of the end of a log."""
_MOST_LINE = 2**16
_CHUNK = 2**16
_PERIOD = 0.5


class NotRead(Exception):
    """The log cannot be read. The text says why."""


def read(account: Account, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
    """The last lines of the log of the user endpoint `name`; with `follow` also what is added, without end.

    Raises:
        NotRead: it cannot be read, or not within TIME_LIMIT.
    """
    loop = asyncio.new_event_loop()
    reading, writing = os.pipe()
    process = None
    try:
        try:
            arguments = name, str(lines), str(int(follow))
            starting = as_account.start(account, writing, "mep.cli.user_log", *arguments, within=TIME_LIMIT)
            process = loop.run_until_complete(starting)
        except NotStarted as e:
            raise NotRead(f"the home of {account.name} cannot be entered: {e.reason}") from None
        finally:
            os.close(writing)
        yield from _lines(reading, follow)
    finally:
        os.close(reading)
        if process is not None:
            loop.run_until_complete(process.end())
        loop.close()


def _lines(reading: int, follow: bool) -> Iterator[str]:
    begun, left, until = b"", _MOST + _CHUNK, time.monotonic() + TIME_LIMIT
    while follow or left > 0:
        if not follow and not select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
            raise NotRead(f"it has not come to its end within {TIME_LIMIT:g} s")
        part = os.read(reading, _CHUNK)
        left -= len(part)
        *whole, begun = (begun + part).split(b"\n")
        for line in whole:
            if line.startswith(_TOLD):
                raise NotRead(escaped(line.removeprefix(_TOLD).decode("utf-8", "replace")))
            yield escaped(line[:_MOST_LINE].decode("utf-8", "replace"))
        if not part or len(begun) > _MOST_LINE:
            if begun:
                yield escaped(begun[:_MOST_LINE].decode("utf-8", "replace"))
            begun = b""
        if not part:
            return


_TOLD = b"\0mep: "
"""Begins a line that says why there are no others; no text has it by chance."""


def _main(name: str, lines: int, follow: bool) -> None:
    """As the account, in its home."""
    path = Path(".globus_compute", name, "endpoint.log")
    try:
        descriptor = _opened(path)
        _write(b"".join(_end(descriptor).splitlines(keepends=True)[-lines:]) if lines else b"")
        while follow:
            if more := os.read(descriptor, _CHUNK):
                _write(more)
                continue
            with contextlib.suppress(OSError):
                if not os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.close(descriptor)
                    descriptor = _opened(path)
                    continue
            time.sleep(_PERIOD)
    except BrokenPipeError:
        return
    except OSError as e:
        _write(_TOLD + f"{path}: {e.strerror}\n".encode())


def _opened(path: Path) -> int:
    """A file that does not wait. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(0, "is no file")
    return descriptor


def _end(descriptor: int) -> bytes:
    os.lseek(descriptor, max(0, os.fstat(descriptor).st_size - _MOST), os.SEEK_SET)
    said = b""
    while len(said) < 2 * _MOST and (part := os.read(descriptor, _CHUNK)):
        said += part
    return said


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")
