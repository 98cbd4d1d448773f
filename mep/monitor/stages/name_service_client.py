"""One name service helper (`accounts.server`): its process, its connection, and the look-ups that it owes an answer.

`name_service` starts it, and another one when this is lost. What the helper says is checked as a stranger's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

from mep.processes import helper
from mep.processes.replaceable import Lost
from mep.processes.supervised import SupervisedProcess
from mep.request.account import Account, ShellFault

MAX_LINE = 2**20
"""Bytes of one answer of the helper: an account can be a member of 65536 groups."""
_MAX_TEXT = 4096
"""Characters of one text in it."""
_NO_ID = 2**32 - 1
"""To the kernel this is no id but the word "unchanged"."""

Decode = Callable[[Any, Any], Any]
"""What was asked and what came -> the answer. Raises ValueError when it cannot be the answer to that."""


class LookUpFailed(Exception):
    """The helper could not look it up. The text is the helper's."""


class Client:
    """One helper and what it still owes. It is lost as a whole, and `lost` says why. last_answer: the loop's time."""

    def __init__(self, process: SupervisedProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.last_answer = loop.time()
        self.lost: str | None = None
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count()
        self._owed: dict[int, tuple[asyncio.Future[Any], Callable[[Any], Any]]] = {}
        self._reading = loop.create_task(self._read())

    @classmethod
    async def start(cls, account: Account) -> Client:
        """A helper that runs as the account. Raises HelperUnavailable."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
            try:
                process = await helper.start("mep.accounts.server", account, theirs)
            except BaseException:
                writer.close()
                raise
        return cls(process, reader, writer)

    async def ask(self, kind: str, what: str | Sequence[str], decode: Decode) -> Any:
        """The decoded answer.

        Raises:
            Lost: there will be none.
            LookUpFailed: the helper says so.
        """
        if self.lost is not None:
            raise Lost(self.lost)
        number, loop = next(self._numbers), asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._owed[number] = (future, lambda found: decode(what, found))  # owed until it comes, wanted or not
        self._writer.write(json.dumps({"id": number, kind: what}).encode() + b"\n")
        return await future

    def give_up(self, reason: str) -> None:
        """Ends the helper; whoever waits for it is told."""
        self.lost = self.lost or reason
        self.process.kill()
        self._writer.transport.abort()  # ends `_read`, whatever becomes of the process
        while self._owed:
            future, _ = self._owed.popitem()[1]
            if not future.done():
                future.set_exception(Lost(self.lost))

    async def end(self) -> None:
        """Ends the helper, and waits until it is gone."""
        self.give_up("it was stopped")
        await self._reading

    async def _read(self) -> None:
        reason = "it ended by itself"
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):
                self._take(line)
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            reason = f"its answer made no sense ({type(e).__name__}: {e})"
        except OSError as e:
            reason = f"it could not be read from ({e})"
        self.give_up(reason)
        await self.process.end()

    def _take(self, line: bytes) -> None:
        answer = json.loads(line)
        number = _id(answer["id"])
        future, decode = self._owed[number]
        result = LookUpFailed(_text(answer["failed"])) if "failed" in answer else decode(answer["found"])
        del self._owed[number]
        self.last_answer = asyncio.get_running_loop().time()
        if future.done():  # nobody waits any more
            return
        if isinstance(result, LookUpFailed):
            future.set_exception(result)
        else:
            future.set_result(result)


def account(_username: str, found: Any) -> Account | None:
    """The account that was found. Raises ValueError unless it is one."""
    if found is None:
        return None
    names = Account.__dataclass_fields__
    if not isinstance(found, dict) or set(found) != set(names):
        raise ValueError("not an account")
    texts = {name: _text(found[name]) for name in ("name", "gecos", "home", "shell")}
    fault = None if found["shell_fault"] is None else ShellFault(found["shell_fault"])
    gid, groups = _id(found["gid"]), found["groups"]
    if not isinstance(groups, list):
        raise ValueError("groups are not a list")  # noqa: TRY004 - a type is a value here
    return Account(
        uid=_id(found["uid"]), gid=gid, groups=tuple(sorted({gid, *map(_id, groups)})), shell_fault=fault, **texts
    )


def ids(names: Sequence[str], found: Any) -> list[int | None]:
    """The ids of the groups `names`. Raises ValueError unless they are some."""
    if not isinstance(found, list) or len(found) != len(names):
        raise ValueError("not as many ids as names")
    return [None if value is None else _id(value) for value in found]


def _id(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _NO_ID:
        raise ValueError("an id is not a whole number in range")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or "\0" in value:
        raise ValueError("a text is none, or too long, or has a NUL")
    return value
