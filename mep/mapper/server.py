"""The mapper: decides whom an identity becomes. A program: `python -m mep.mapper.server`.

What strangers wrote is parsed here, and matched by what the site wrote: patterns, templates, answers of programs. So it
is a process of an account that owns nothing, without a network. It reads no file and starts no process; where a mapping
program has to be asked, it asks the monitor to run it.

The monitor (`monitor.stages.identification`) is at the other end of descriptor 0; `processes.mapper_protocol` has the
messages. Many requests are decided at a time, and answered in the order in which the answers are there. Each is a
coroutine that goes on in turn with the others; what it waits for comes as a message, so no event loop is needed.
"""

from __future__ import annotations

import mep.processes.without_libraries  # noqa: F401 - first: what comes below imports them

# isort: split
import collections
import contextlib
import json
import os
import resource
import select
import socket
import traceback
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from identity.runner import MapperError
from mep.mapper.mapping import IdentityMapper, first_banned, mapped
from mep.privileged import kernel, network
from mep.processes import message
from mep.processes.mapper_protocol import (
    FILES_TO_MAPPER,
    KEPT,
    MOST_ANSWER,
    MOST_QUESTION,
    FromMapper,
    ToMapper,
    write_mapped,
)
from mep.processes.message import Files, cut
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
    with socket.socket(fileno=0) as connection, contextlib.suppress(ConnectionError):
        Server(connection).serve()
    os._exit(0)  # the monitor has gone: nothing is waited for


@dataclass(frozen=True)
class _Run:
    """A mapping program that is to be run; awaiting it gives what it has written. Raises ProgramFailed."""

    program: int
    question: bytes

    def __await__(self) -> Generator[_Run, bytes, bytes]:
        return (yield self)


@dataclass(frozen=True)
class _Answer:
    """What is said about a request at its end."""

    kind: FromMapper
    why: str | None = None
    file: bytes | None = None
    banned: int | None = None


Request = Coroutine[_Run | None, bytes | None, _Answer]
"""One that is being decided. It yields what it waits for; nothing, to let others go on first."""


class Server:
    """Documents that were given, and requests that are being decided by them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._mappers: dict[int, IdentityMapper] = {}
        self._ready: collections.deque[tuple[int, Request, bytes | ProgramFailed | None]] = collections.deque()
        """What goes on in its turn: its number, and what it has waited for."""
        self._running: dict[int, Request] = {}
        """What waits for a mapping program, by its number."""
        self._does: Mapping[int, Callable[[int, Mapping[str, Any], Files], None]] = {
            ToMapper.DOCUMENTS: self._documents,
            ToMapper.MAP: self._begin,
            ToMapper.RAN: lambda number, _body, files: self._ran(number, files[0].read()),
            ToMapper.NOT_RAN: lambda number, body, _files: self._ran(number, ProgramFailed(body["why"])),
        }

    def serve(self) -> None:
        """Returns when the monitor has gone."""
        self._say(FromMapper.READY, 0)
        while True:
            came, _, _ = select.select([self._connection], [], [], 0 if self._ready else None)
            if came:
                asked = message.receive(self._connection, FILES_TO_MAPPER)
                if asked is None:
                    return
                kind, number, body, files = asked
                self._does[kind](number, body, files)
            if self._ready:
                self._go_on(*self._ready.popleft())

    def _documents(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        self._mappers[number] = IdentityMapper(files[0].read().decode(), body["source"], body["endpoint_id"])
        while len(self._mappers) > KEPT:
            del self._mappers[next(iter(self._mappers))]

    def _begin(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        mapper = self._mappers[body["documents"]]  # now: they may have been replaced by the time that it is decided
        identity_set, banned = files[0].read().decode(), json.loads(files[1].read())
        asked = (identity_set, body["requester"], banned, _Run if body["programs"] else None)
        work = _decided(mapper, *asked, directory_names=body["directory_names"])
        self._ready.append((number, work, None))

    def _ran(self, number: int, said: bytes | ProgramFailed) -> None:
        self._ready.append((number, self._running.pop(number), said))

    def _go_on(self, number: int, request: Request, said: bytes | ProgramFailed | None) -> None:
        try:
            wanted = request.throw(said) if isinstance(said, ProgramFailed) else request.send(said)
        except StopIteration as end:
            answer: _Answer = end.value
            facts = {"why": answer.why, "banned": answer.banned}
            body = {name: value for name, value in facts.items() if value is not None}
            self._say(answer.kind, number, answer.file, **body)
            return
        if wanted is None:
            self._ready.append((number, request, None))
        else:
            self._running[number] = request
            self._say(FromMapper.RUN, number, wanted.question, program=wanted.program)

    def _say(self, kind: FromMapper, number: int, file: bytes | None = None, **body: object) -> None:
        files = [] if file is None else [SealedFile.of(file)]
        message.send(self._connection, message.pack(kind, number, body), files)


async def _decided(
    mapper: IdentityMapper,
    identity_set: str,
    requester: str,
    banned: Sequence[str],
    run: type[_Run] | None,
    *,
    directory_names: bool,
) -> _Answer:
    try:
        if (number := first_banned(identity_set, banned)) is not None:
            return _Answer(FromMapper.BANNED, banned=number)
        decision = await mapper.decide(identity_set, requester, run, directory_names=directory_names)
        identity = mapped(decision)
        if identity is None:
            return _Answer(FromMapper.NOBODY, cut(str(decision.refusal)))
        if len(answer := write_mapped(identity)) > MOST_ANSWER:
            return _Answer(FromMapper.FAILED, "there are too many documents to tell the answer")
        return _Answer(FromMapper.MAPPED, file=answer)
    except MapperError as e:
        return _Answer(FromMapper.FAILED, cut(str(e)))
    except Exception as e:  # noqa: BLE001 - whatever it was, the monitor waits for an answer
        traceback.print_exc()
        return _Answer(FromMapper.FAILED, f"unexpected error ({type(e).__name__}), see the log")


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
