"""The mapper: decides whom an identity becomes. A program: `python -m mep.mapper.server`.

What strangers wrote is parsed here, and matched by what the site wrote: patterns, templates, answers of programs. So it
is a process of an account that owns nothing, without a network. It reads no file and starts no process; where a mapping
program has to be asked, it asks the monitor to run it.

The monitor (`monitor.stages.identification`) is at the other end of descriptor 0; `processes.mapper_protocol` has the
messages. Many requests are decided at a time, and answered in the order in which the answers are there.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from identity.runner import MapperError
from mep.mapper.mapping import IdentityMapper, mapped
from mep.privileged import kernel, network
from mep.processes.channel import Channel, Files
from mep.processes.mapper_protocol import (
    FILES_TO_MAPPER,
    KEPT,
    MOST_ANSWER,
    MOST_QUESTION,
    FromMapper,
    ToMapper,
    write_mapped,
)
from mep.processes.message import cut
from mep.processes.sealed_file import SealedFile
from mep.request.mapping_program import ProgramFailed

MEMORY = 2**30
"""Bytes of address space: the largest documents take a fraction of it."""
_MAX_DESCRIPTORS = 256


def main() -> None:
    """Serves the monitor until it closes the socket."""
    kernel.set_dumpable(False)
    network.forbid()
    for what, limit in (
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MOST_QUESTION),  # files in memory count, too
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_AS, MEMORY),
    ):
        resource.setrlimit(what, (limit, limit))
    loop = asyncio.SelectorEventLoop()
    with socket.socket(fileno=0) as connection:
        loop.run_until_complete(Server().run(connection))
    os._exit(0)  # the monitor has gone: nothing is waited for


class Server:
    """Documents that were given, and requests that are being decided by them."""

    def __init__(self) -> None:
        self._mappers: dict[int, IdentityMapper] = {}
        self._runs: dict[int, asyncio.Future[bytes]] = {}
        """What is waited for of mapping programs, by the number of the request."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._does: Mapping[int, Callable[[int, Mapping[str, Any], Files], None]] = {
            ToMapper.DOCUMENTS: self._documents,
            ToMapper.MAP: self._begin,
            ToMapper.RAN: lambda number, _body, files: self._runs.pop(number).set_result(files[0].read()),
            ToMapper.NOT_RAN: lambda number, body, _files: self._runs.pop(number).set_exception(
                ProgramFailed(body["why"])
            ),
        }

    async def run(self, connection: socket.socket) -> None:
        """Returns when the monitor has gone."""
        gone = asyncio.Event()
        self._channel = Channel(connection, FILES_TO_MAPPER, self._take, lambda _: gone.set())
        self._channel.send(FromMapper.READY)
        await gone.wait()

    def _take(self, kind: int, number: int, body: Mapping[str, Any], files: Files) -> None:
        self._does[kind](number, body, files)

    def _documents(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        self._mappers[number] = IdentityMapper(files[0].read().decode(), body["source"], body["endpoint_id"])
        while len(self._mappers) > KEPT:
            del self._mappers[next(iter(self._mappers))]

    def _begin(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        mapper = self._mappers[body["documents"]]  # now: they may have been replaced by the time that it is decided
        work = self._answer(number, mapper, files[0].read().decode(), body["requester"], programs=body["programs"])
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, number: int, mapper: IdentityMapper, identity_set: str, requester: str, *, programs: bool
    ) -> None:
        async def run(program: int, question: bytes) -> bytes:
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._runs[number] = answer
            self._channel.send(FromMapper.RUN, number, program=program, files=[SealedFile.of(question)])
            return await answer

        try:
            decision = await mapper.decide(identity_set, requester, run if programs else None)
            identity = mapped(decision)
            if identity is None:
                self._channel.send(FromMapper.NOBODY, number, why=cut(str(decision.refusal)))
            elif len(answer := write_mapped(identity)) > MOST_ANSWER:
                self._channel.send(FromMapper.FAILED, number, why="there are too many documents to tell the answer")
            else:
                self._channel.send(FromMapper.MAPPED, number, files=[SealedFile.of(answer)])
        except MapperError as e:
            self._channel.send(FromMapper.FAILED, number, why=cut(str(e)))
        except Exception as e:  # noqa: BLE001 - whatever it was, the monitor waits for an answer
            traceback.print_exc()
            self._channel.send(FromMapper.FAILED, number, why=f"unexpected error ({type(e).__name__}), see the log")


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
