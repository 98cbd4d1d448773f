"""From user options to a user endpoint's configuration, through the render worker (see `render_worker`).

The worker is one long-lived process, started as `render_account`. One request at a time: rendering takes
milliseconds. A worker that dies, or does not answer in time, is replaced; its request is refused, others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mep import account, reaping
from mep.account import Account
from mep.command import StartEndpoint
from mep.config import ManagerConfig
from mep.mapping import MappedIdentity
from mep.privileged.launch import start
from mep.privileged.spec import LaunchRefused, LaunchSpec
from mep.profile import Profile
from mep.refusal import Refused
from mep.report import read_report

TIME_LIMIT = 10.0
"""Seconds for one request, the start of a worker included."""
MAX_LINE = 16 * 2**20
"""Bytes of one request, and of one answer."""


class RendererUnavailable(Exception):
    """No render worker can be started. The text says why and what to do; `exit_code` is one of os.EX_*."""

    def __init__(self, text: str, exit_code: int = os.EX_TEMPFAIL) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class RenderedConfig:
    """A user endpoint's configuration, as YAML text."""

    text: str


class Renderer:
    """Keeps one render worker. `render_account` names the account that it runs as."""

    def __init__(self, render_account: str) -> None:
        self._account = render_account
        self._lock = asyncio.Lock()
        self._worker: _Worker | None = None

    async def start(self) -> None:
        """Starts the worker ahead of the first request. Raises RendererUnavailable."""
        async with self._lock:
            self._worker = await _Worker.start(self._account)

    async def render(
        self, profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
    ) -> RenderedConfig:
        """The configuration for this request.

        Raises:
            Refused: stage `options` (they break the schema) or `template`; or the worker failed on it.
        """
        answer = await self._ask(_request(profile, command, identity, account))
        if "config" not in answer:
            raise Refused(answer["stage"], answer["admin"], answer["user"])
        return RenderedConfig(answer["config"])

    async def stop(self) -> None:
        """Ends the worker."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()

    async def _ask(self, request: bytes) -> dict[str, str]:
        if len(request) >= MAX_LINE:
            reason = f"user_endpoint_config is too large ({len(request)} bytes; the limit is {MAX_LINE})"
            raise Refused("options", reason, f"Your {reason}.")
        async with self._lock:
            try:
                return await asyncio.wait_for(self._exchange(request), TIME_LIMIT)
            except (asyncio.TimeoutError, OSError, EOFError, asyncio.LimitOverrunError, ValueError) as e:
                await self.stop()
                reason = f"the render worker did not answer within {TIME_LIMIT:g} s, or died ({type(e).__name__})"
                user = "This endpoint could not process your user_endpoint_config within its limits of time and memory."
                raise Refused("template", reason, user) from None
            except RendererUnavailable as e:
                user = "This endpoint cannot start user endpoints at the moment; please tell its administrators."
                raise Refused("template", str(e), user) from None
            except BaseException:
                await self.stop()  # its answer, still to come, must not become the answer to somebody else's request
                raise

    async def _exchange(self, request: bytes) -> dict[str, str]:
        if self._worker is not None and self._worker.reader.at_eof():
            await self.stop()  # it died between requests; nobody's request is to blame
        if self._worker is None:
            self._worker = await _Worker.start(self._account)
        return await self._worker.exchange(request)


@dataclass
class _Worker:
    """A running worker process and the socket to it."""

    pid: int
    pidfd: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, render_account: str) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            started = start(_spec(render_account, theirs.fileno()))
        except BaseException as e:
            ours.close()
            if isinstance(e, (LaunchRefused, OSError)):
                raise RendererUnavailable(f"cannot start the render worker: {e}") from None
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE)
        worker = cls(started.pid, started.pidfd, reader, writer)
        try:
            failure = await read_report(started.report)
        except BaseException:
            await worker.end()
            raise
        if failure is not None:
            await worker.end()
            raise RendererUnavailable(
                f"cannot start the render worker as account {render_account!r}: step {failure.step}: {failure.text}"
            )
        return worker

    async def exchange(self, request: bytes) -> dict[str, str]:
        self.writer.write(request)
        await self.writer.drain()
        line = await self.reader.readuntil(b"\n") if not self.reader.at_eof() else b""
        answer: dict[str, str] = json.loads(line)
        return answer

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        reaping.forget(self.pid, self.pidfd)
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def _spec(render_account: str, connection: int) -> LaunchSpec:
    try:
        who = account.find(render_account)
    except Refused:
        reason = f"no account {render_account!r} on this system; set render_account in config.yaml"
        raise RendererUnavailable(reason, os.EX_CONFIG) from None
    return LaunchSpec(
        argv=(sys.executable, "-I", "-m", "mep.render_worker"),
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/"},
        username=who.name,
        uid=who.uid,
        gid=who.gid,
        groups=(who.gid,),
        directory="/",
        log=None,
        descriptors={0: connection, 1: 2, 2: 2},
    )


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
    try:
        return json.dumps(request).encode() + b"\n"
    except RecursionError:
        reason = "user_endpoint_config is nested too deeply"
        raise Refused("options", reason, f"Your {reason}.") from None


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
