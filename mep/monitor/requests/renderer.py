"""From user options to a user endpoint's configuration, through the render server (see `render_worker`).

The server is one long-lived process, started as `render_account`, that forks a child for each request. Requests of one
account go one after the other, so that nobody takes all places; PARALLEL of different accounts go at a time. What
passes between here and a child is nobody else's to see: each request has a socket pair of its own.

A child that reaches a limit, or dies, has its request refused; others do not notice. A server that dies, talks garbage
or is silent is replaced, and the requests that were with it are tried once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from mep.processes import reaping
from mep.processes.printable import escaped
from mep.processes.render_protocol import (
    CPU,
    ENDED,
    JOB,
    MAX_OPTIONS,
    MAX_REASON,
    MEMORY,
    OUT_OF_MEMORY,
    PARALLEL,
    WALL,
)
from mep.processes.report import read_report
from mep.processes.supervised import WorkerUnavailable, launch
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint

START_LIMIT = 30.0
"""Seconds until a new server must be ready. Python packages may lie on a slow file system."""
ANSWER_LIMIT = 30.0
"""Seconds for one request. The server ends a child long before, so this is about the server itself."""
MAX_ANSWER = 5 * 2**20
"""Bytes of one answer: a configuration of the largest size, in the widest characters."""
_UNAVAILABLE = "This endpoint cannot start user endpoints at the moment; please tell its administrators."


class Renderer:
    """Keeps one render server. `render_account` names the account that it runs as."""

    def __init__(self, render_account: str) -> None:
        self._account = render_account
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._places = asyncio.Semaphore(PARALLEL)
        self._starting = asyncio.Lock()
        self._server: _Server | None = None
        self._stopped = False

    async def start(self) -> None:
        """Starts the server ahead of the first request. Raises WorkerUnavailable."""
        await self._running()

    async def render(
        self, profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
    ) -> RenderedConfig:
        """The configuration for this request.

        Raises:
            Refused: stage `options` (they break the schema, or a limit was reached) or `template`.
        """
        request = _request(profile, command, identity, account)
        turn = self._turns.setdefault(account.uid, asyncio.Lock())
        async with turn, self._places:
            return RenderedConfig(_read(await self._ask(request)))

    async def stop(self) -> None:
        """Ends the server for good. Requests under way are refused."""
        self._stopped = True
        async with self._starting:
            if self._server is not None:
                self._server.end()

    async def _ask(self, request: bytes) -> _Answer:
        for _ in range(2):
            try:
                server = await self._running()
                return await asyncio.wait_for(server.exchange(request), ANSWER_LIMIT)
            except WorkerUnavailable as e:
                raise Refused("template", str(e), _UNAVAILABLE) from None
            except asyncio.TimeoutError:
                server.end()
            except _ServerLost:
                continue
        reason = "the render server died or was silent, and so did the one after it"
        raise Refused("template", reason, "This endpoint could not process your request. Please submit again.")

    async def _running(self) -> _Server:
        async with self._starting:
            if self._stopped:
                raise WorkerUnavailable("the renderer has been stopped")
            if self._server is None or self._server.lost:
                self._server = await _Server.start(self._account)
            return self._server


class _ServerLost(Exception):
    """The server ended, or made no sense, before it told how a request's child had ended."""


@dataclass(frozen=True)
class _Answer:
    """What a child wrote, of which at most MAX_ANSWER and a byte were read, and how it ended."""

    data: bytes
    exit_code: int
    late: bool


@dataclass(eq=False)
class _Server:
    """A running server and the socket to it. `jobs` has a future for each job that it has; 0 is to become ready."""

    pid: int
    pidfd: int
    connection: socket.socket
    lost: bool = False
    jobs: dict[int, asyncio.Future[tuple[int, bool] | None]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    async def start(cls, render_account: str) -> _Server:
        """A server that is ready. Raises WorkerUnavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            started = launch("mep.renderer.server", render_account, theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        server = cls(started.pid, started.pidfd, ours)
        try:
            await server._become_ready(render_account, started.report)
        except BaseException:
            server.end()
            raise
        return server

    async def _become_ready(self, render_account: str, report: int) -> None:
        cannot = f"cannot start the render server as account {render_account!r}"
        ready = self._expect(next(self.numbers))
        asyncio.get_running_loop().add_reader(self.connection, self._receive)
        try:
            failure = await asyncio.wait_for(read_report(report), START_LIMIT)
            if failure is not None:
                raise WorkerUnavailable(f"{cannot}: step {failure.step}: {failure.text}")
            ended = await asyncio.wait_for(ready, START_LIMIT)
        except asyncio.TimeoutError:
            raise WorkerUnavailable(f"{cannot}: not ready after {START_LIMIT:g} s") from None
        if ended is None:
            reason = f"{cannot}: it ended at once; can that account read the Python packages under {sys.prefix}?"
            raise WorkerUnavailable(reason)

    async def exchange(self, request: bytes) -> _Answer:
        """Has a child handle `request`. Raises _ServerLost."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                ended = self._submit(theirs)
            data = await _converse(ours, request)
        how = await ended
        if how is None:
            raise _ServerLost
        return _Answer(data, *how)

    def end(self) -> None:
        """Kills it, and with it its children; whoever waits for it is told."""
        if self.lost:
            return
        self.lost = True
        asyncio.get_running_loop().remove_reader(self.connection)
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        reaping.forget(self.pid, self.pidfd)
        for future in self.jobs.values():
            if not future.done():
                future.set_result(None)

    def _expect(self, number: int) -> asyncio.Future[tuple[int, bool] | None]:
        expected = self.jobs[number] = asyncio.get_running_loop().create_future()
        return expected

    def _submit(self, theirs: socket.socket) -> asyncio.Future[tuple[int, bool] | None]:
        number = next(self.numbers)
        ended = self._expect(number)
        try:
            socket.send_fds(self.connection, [JOB.pack(number)], [theirs.fileno()])
        except OSError:  # it is gone, or so far behind that it might as well be
            self.end()
        return ended

    def _receive(self) -> None:
        try:
            number, exit_code, late = ENDED.unpack(self.connection.recv(ENDED.size + 1))
            ended = self.jobs.pop(number)
        except (OSError, struct.error, KeyError):  # its end, or garbage
            self.end()
            return
        if not ended.done():  # the request may have been given up
            ended.set_result((exit_code, late))


async def _converse(connection: socket.socket, request: bytes) -> bytes:
    """Sends the request and reads until the answer's end, or as far as the child got, or beyond MAX_ANSWER."""
    loop = asyncio.get_running_loop()
    answer = bytearray()
    with contextlib.suppress(OSError):  # the child is gone; what that means is told by its exit code
        await loop.sock_sendall(connection, request)
        connection.shutdown(socket.SHUT_WR)
        while len(answer) <= MAX_ANSWER and (chunk := await loop.sock_recv(connection, 2**16)):
            answer += chunk
    return bytes(answer)


def _read(answer: _Answer) -> str:
    """The configuration. Raises Refused. The child may have been taken over by what it read: anything may come."""
    if answer.exit_code == os.EX_TEMPFAIL:
        raise Refused("template", "the render server could not start a process; see its limits", _UNAVAILABLE)
    limit = _limit(answer)
    if limit is not None:
        reason = f"Your user_endpoint_config is the reason: processing it {limit}."
        raise Refused("options", f"user_endpoint_config: processing it {limit}", reason)
    match answer.data.decode(errors="replace").split("\0", 3):
        case ["config", *text]:
            return "\0".join(text)
        case ["refused", ("options" | "template") as stage, admin, user]:
            raise Refused(stage, escaped(admin[:MAX_REASON]), escaped(user[:MAX_REASON]))
    reason = "Your user_endpoint_config is the reason: processing it failed."
    raise Refused("options", "user_endpoint_config: the render server's child answered with garbage", reason)


def _limit(answer: _Answer) -> str | None:
    """Which limit a child reached; None for a child that ended well."""
    if answer.late:
        return f"took more than {WALL:g} s"
    if len(answer.data) > MAX_ANSWER:
        return f"gave more output than {MAX_ANSWER} bytes"
    if answer.exit_code == -signal.SIGXCPU:
        return f"took more than {CPU} s of processor time"
    if answer.exit_code in (OUT_OF_MEMORY, -signal.SIGABRT):
        return f"took more than {MEMORY // 2**20} MiB of memory"
    if answer.exit_code < 0:
        return f"was ended by signal {-answer.exit_code}"
    return None if answer.exit_code == 0 else f"failed (exit code {answer.exit_code})"


def _request(profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account) -> bytes:
    request = {
        "template": profile.template_name,
        "templates": profile.templates,
        "schema": profile.schema,
        "options": command.user_options,
        "runtime": command.user_runtime,
        "identity": _identity_variable(identity, account),
        "config": _config_variable(profile.config),
        "environment": profile.environment,
    }
    for name, value in (("user_endpoint_config", command.user_options), ("user_runtime", command.user_runtime)):
        _check_size(name, value)
    return json.dumps(request).encode()


def _check_size(name: str, value: Mapping[str, Any]) -> None:
    try:
        size = len(json.dumps(value))
    except RecursionError:
        raise Refused("options", f"{name} is nested too deeply", f"Your {name} is nested too deeply.") from None
    if size > MAX_OPTIONS:
        reason = f"{name} is too large ({size} bytes as JSON; the limit is {MAX_OPTIONS})"
        raise Refused("options", reason, f"Your {reason}.")


def _identity_variable(identity: MappedIdentity, account: Account) -> dict[str, Any]:
    """The template variable `mapped_identity`, in the public package's shape."""
    return {
        "local": {
            "uname": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "gecos": account.gecos,
            "shell": account.shell,
            "dir": account.home,
            "groups": account.groups,
        },
        "globus": {"id": identity.identity},
    }


def _config_variable(config: ManagerConfig) -> Mapping[str, Any]:
    """The template variable `parent_config`: the manager's configuration as plain JSON values."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(config).items()}
