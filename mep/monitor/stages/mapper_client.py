"""One mapper (`mapper.server`): its process, its connection, and the requests that it owes an answer.

`identification` starts it, and another one when this is lost. What the mapper says is checked as a stranger's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from mep.processes import helper
from mep.processes.channel import Channel, Files
from mep.processes.helper import HelperUnavailable
from mep.processes.mapper_protocol import (
    FILES_FROM_MAPPER,
    KEPT,
    MOST_REQUESTER,
    FromMapper,
    ToMapper,
    read_mapped,
    read_text,
)
from mep.processes.message import cut
from mep.processes.replaceable import Lost
from mep.processes.sealed_file import SealedFile
from mep.processes.supervised import SupervisedProcess
from mep.processes.time_limit import within
from mep.profile.mapping_documents import MappingDocuments
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import ProgramFailed, RunProgram
from mep.request.start_endpoint import StartEndpoint

START_LIMIT = 30.0
"""Seconds until a new mapper must be ready. Python packages may lie on a slow file system."""
ANSWER_LIMIT = 30.0
"""Seconds that it may take for an answer, the time of mapping programs aside; so few are asked at a time
(`identification.PLACES`) that one takes hundredths of one."""


@dataclass(frozen=True)
class Wanted:
    """The mapper wants a program to be run: which of those that the documents name, and what it is to read."""

    program: int
    question: bytes


@dataclass(frozen=True)
class Nobody:
    """The documents name no account."""

    why: str


@dataclass(frozen=True)
class Banned:
    """The requester has a banned identity: its number among those that were named."""

    number: int


@dataclass(frozen=True)
class Failed:
    """There is no answer now."""

    why: str


Decided: TypeAlias = "MappedIdentity | Nobody | Banned | Failed"
Said: TypeAlias = "Wanted | Decided"
Place: TypeAlias = "Callable[[], AbstractAsyncContextManager[object]]"
"""A place for a request, which may have to be waited for."""
_NOBODY_WAITS = "nobody waits for the answer any more"


class _Request:
    """A request that is owed an answer.

    programs: how many it may want to be run. most: bytes of what one is to read: the records of the set, written anew.
    directory_names: names may be as only directories have them. banned: how many identities it may choose from.
    asked: it is the mapper's turn to speak. wanted: somebody waits for it.
    """

    def __init__(self, programs: int, banned: int, identity_set: str, *, directory_names: bool) -> None:
        self.programs = programs
        self.banned = banned
        self.directory_names = directory_names
        self.most = 2 * len(identity_set) + 1024
        self.runs = 0
        self.asked = False
        self.wanted = True
        self.answer: asyncio.Future[Said | None] = asyncio.get_running_loop().create_future()


class MapperClient:
    """One mapper, and what it still owes. It is lost as a whole, and `lost` says why."""

    def __init__(self, process: SupervisedProcess, connection: socket.socket, endpoint_id: str) -> None:
        self.process = process
        self.lost: str | None = None
        self._endpoint_id = endpoint_id
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count(1)
        self._documents: dict[tuple[str, str], int] = {}
        self._owed: dict[int, _Request] = {}
        self._channel = Channel(connection, FILES_FROM_MAPPER, self._take, self.give_up)
        self._hears: Mapping[int, Callable[[_Request, Mapping[str, Any], Files], Said]] = {
            FromMapper.RUN: _wanted,
            FromMapper.MAPPED: _mapped,
            FromMapper.NOBODY: lambda _request, body, _files: Nobody(read_text(body["why"])),
            FromMapper.BANNED: lambda request, body, _files: _banned(request, body),
            FromMapper.FAILED: lambda _request, body, _files: Failed(read_text(body["why"])),
        }

    @classmethod
    async def start(cls, account: Account, endpoint_id: str) -> MapperClient:
        """A mapper that runs as the account and is ready. endpoint_id: the manager's. Raises HelperUnavailable."""
        client = cls(*await helper.connected("mep.mapper.server", account), endpoint_id)
        try:
            ready = await within(START_LIMIT, client._ready)
        except asyncio.TimeoutError:
            client.give_up(f"it was not ready within {START_LIMIT:g} s")
            ready = False
        except BaseException:
            client.give_up("it is not waited for")
            raise
        if not ready:
            reason = f"{client.lost}; can that account read the Python packages under {sys.prefix}?"
            raise HelperUnavailable(f"cannot start the mapper as account {account.name!r}: {reason}")
        return client

    async def decide(
        self,
        command: StartEndpoint,
        documents: MappingDocuments,
        banned: Sequence[str],
        run: RunProgram | None,
        place: Place,
    ) -> Decided:
        """Whom the request is mapped to. banned: identities that the requester may not have, ids and user names in
        lower case. run: what runs mapping programs; without it none may be wanted. place: held while it is the mapper's
        turn, and not while a program runs.

        Raises:
            Lost: the mapper says nothing any more.
            OSError: no descriptor or memory to be had.
        """
        number, programs = next(self._numbers), len(documents.programs) if run is not None else 0
        self._owed[number] = request = _Request(
            programs, len(banned), command.identity_set, directory_names=documents.directory_names
        )
        try:
            async with place():
                self._ask(number, command, documents, banned, programs=run is not None)
                said = await self._answer(request)
            while isinstance(said, Wanted):
                assert run is not None
                output, why = await _outcome(run, said)
                async with place():
                    self._tell_outcome(number, output, why)
                    said = await self._answer(request)
            return said
        finally:
            self._forget(number)

    def give_up(self, reason: str) -> None:
        """Ends the mapper; whoever waits for it is told."""
        self.lost = self.lost or reason
        self._channel.close()
        self.process.kill()
        if not self._ready.done():
            self._ready.set_result(False)
        while self._owed:
            _, request = self._owed.popitem()
            if not request.answer.done():
                request.answer.set_result(None)

    async def end(self) -> None:
        """Ends the mapper, and waits until it is gone."""
        self.give_up("it was stopped")
        await self.process.end()

    def _ask(
        self,
        number: int,
        command: StartEndpoint,
        documents: MappingDocuments,
        banned: Sequence[str],
        *,
        programs: bool,
    ) -> None:
        self._require()
        files = [SealedFile.of(text.encode()) for text in (command.identity_set, json.dumps(banned))]
        theirs, requester = self._give(documents), command.requester[:MOST_REQUESTER]
        self._owed[number].asked = True
        how = {"programs": programs, "directory_names": documents.directory_names}
        self._tell(ToMapper.MAP, number, *files, documents=theirs, requester=requester, **how)

    def _give(self, documents: MappingDocuments) -> int:
        """The number of the documents, which the mapper has from now on. Both sides keep the newest KEPT."""
        key = (str(documents.path), documents.digest)
        if key not in self._documents:
            file, number = SealedFile.of(documents.text.encode()), next(self._numbers)
            self._documents[key] = number
            self._tell(ToMapper.DOCUMENTS, number, file, source=cut(key[0]), endpoint_id=self._endpoint_id)
            while len(self._documents) > KEPT:
                del self._documents[next(iter(self._documents))]
        return self._documents[key]

    def _tell_outcome(self, number: int, output: bytes, why: str | None) -> None:
        self._require()
        files = [SealedFile.of(output)] if why is None else []
        request = self._owed[number]
        request.asked, request.answer = True, asyncio.get_running_loop().create_future()
        if files:
            self._tell(ToMapper.RAN, number, *files)
        else:
            self._tell(ToMapper.NOT_RAN, number, why=cut(str(why)))

    async def _answer(self, request: _Request) -> Said:
        try:
            said = await within(ANSWER_LIMIT, asyncio.shield(request.answer))
        except asyncio.TimeoutError:
            self.give_up(f"it did not answer a request within {ANSWER_LIMIT:g} s")
            said = None
        if said is None:
            raise Lost(self.lost)
        return said

    def _forget(self, number: int) -> None:
        """Nobody waits for it any more. What the mapper owes it owes until it comes."""
        request = self._owed.get(number)
        if request is None:
            return
        request.wanted = False
        if not request.runs and not request.asked:
            del self._owed[number]  # it has never been told
        elif not request.asked:
            self._tell_outcome(number, b"", _NOBODY_WAITS)

    def _require(self) -> None:
        if self.lost is not None:
            raise Lost(self.lost)

    def _tell(self, kind: ToMapper, number: int, *files: SealedFile, **body: object) -> None:
        self._channel.send(kind, number, files=files, **body)

    def _take(self, kind: int, number: int, body: Mapping[str, Any], files: Files) -> None:
        if kind == FromMapper.READY and not self._ready.done():
            self._ready.set_result(True)
            return
        request = self._owed[number]
        if not request.asked:
            raise ValueError("an answer while a program is run")
        said = self._hears[kind](request, body, files)
        request.asked = False
        if not isinstance(said, Wanted):
            del self._owed[number]
        elif not request.wanted:
            self._tell_outcome(number, b"", _NOBODY_WAITS)
            return
        request.answer.set_result(said)


async def _outcome(run: RunProgram, wanted: Wanted) -> tuple[bytes, str | None]:
    """What the program has written, or why it has failed."""
    try:
        return await run(wanted.program, wanted.question), None
    except ProgramFailed as e:
        return b"", str(e)


def _mapped(request: _Request, _body: Mapping[str, Any], files: Files) -> MappedIdentity:
    return read_mapped(files[0].read(), directory_names=request.directory_names)


def _banned(request: _Request, body: Mapping[str, Any]) -> Banned:
    number = body["banned"]
    if type(number) is not int or not 0 <= number < request.banned:
        raise ValueError("none of the banned identities")
    return Banned(number)


def _wanted(request: _Request, body: Mapping[str, Any], files: Files) -> Wanted:
    program = body["program"]
    if type(program) is not int or not 0 <= program < request.programs or request.runs >= request.programs:
        raise ValueError("no program of these documents, or more runs than there are programs")
    if files[0].size > request.most:
        raise ValueError("a question that is longer than the identities that it is about")
    request.runs += 1
    return Wanted(program, files[0].read())
