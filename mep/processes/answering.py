"""A helper that answers questions: its process, and the answers that it owes. `replaceable` keeps one.

What may be answered to what is a table, the helper's `Dialogue`. All else ends that helper and nobody else: an answer
that nobody waits for, a second one, one of another question, with other fields, of another form.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mep.processes import helper
from mep.processes.channel import Channel
from mep.processes.helper import HelperUnavailable
from mep.processes.message import START, Dialogue, Files, Senseless
from mep.processes.replaceable import Lost
from mep.processes.supervised import SupervisedProcess
from mep.processes.time_limit import within
from mep.request.account import Account

START_LIMIT = 30.0
"""Seconds until a new helper must be ready. Python packages may lie on a slow file system."""

Read = Callable[[int, Mapping[str, Any], Files], Any]
"""Makes what was asked for of an answer's kind, body and files; an exception is raised to who has asked. Raises
ValueError when it cannot be the answer."""


class Client:
    """One helper and what it still owes. It is lost as a whole, and `lost` says why. last_answer: the loop's time."""

    def __init__(self, dialogue: Dialogue, process: SupervisedProcess, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.last_answer = loop.time()
        self.lost: str | None = None
        self.ready: asyncio.Future[None] = loop.create_future()
        self._answers = dialogue.answers
        self._numbers = itertools.count(1)
        self._owed: dict[int, tuple[int, Read, asyncio.Future[Any]]] = {0: (START, lambda *_: None, self.ready)}
        self._channel = Channel(connection, dialogue.files, self._take, self.give_up)

    @classmethod
    async def start(cls, dialogue: Dialogue, account: Account) -> Client:
        """One that runs as the account and is ready. Raises HelperUnavailable."""
        try:
            return await within(START_LIMIT, cls._start(dialogue, account))
        except asyncio.TimeoutError:
            why = f"not ready after {START_LIMIT:g} s"
        except Lost as e:
            why = f"{e}; its own words are in the log; can that account read the Python packages under {sys.prefix}?"
        except OSError as e:
            why = e.strerror or str(e)
        raise HelperUnavailable(f"{dialogue.module} as account {account.name!r} does not work: {why}")

    @classmethod
    async def _start(cls, dialogue: Dialogue, account: Account) -> Client:
        client = cls(dialogue, *await helper.connected(dialogue.module, account))
        try:
            await client.ready
        except BaseException:
            client.give_up("it was not ready in time")
            raise
        return client

    async def ask(self, kind: enum.IntEnum, read: Read, files: Files = (), **body: object) -> Any:
        """What `read` makes of the answer. Raises Lost, or the exception that `read` has made."""
        if self.lost is not None:
            raise Lost(self.lost)
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._owed[number] = (kind, read, answer)  # owed until it comes, wanted or not
        self._channel.send(kind, number, files=files, **body)
        try:
            return await answer
        finally:
            del answer  # it holds what is raised, which refers to this frame: all that it holds would stay open

    def give_up(self, why: str) -> None:
        """Ends the helper, and what it has started; whoever waits for it is told."""
        self.lost = self.lost or why
        self.process.kill()
        self._channel.close()
        while self._owed:
            _, _, answer = self._owed.popitem()[1]
            if not answer.done():
                answer.set_exception(Lost(self.lost))

    async def end(self) -> None:
        """Ends the helper, and waits until it is gone."""
        self.give_up("it was stopped")
        await self.process.end()

    def _take(self, kind: int, number: int, body: Mapping[str, Any], files: Files) -> None:
        question, read, answer = self._owed[number]
        if {name: type(value) for name, value in body.items()} != self._answers[question][kind]:
            raise Senseless(f"a message of kind {kind} has other fields")
        found = read(kind, body, files)
        del self._owed[number]
        self.last_answer = asyncio.get_running_loop().time()
        if answer.done():  # nobody waits any more
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)
