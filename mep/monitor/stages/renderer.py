"""From user options to a user endpoint's configuration, through a render server that runs without rights.

The server (`renderer.server`) is one long-lived process that forks a child for each request. Requests of one account go
one after the other, so that nobody takes all places; PARALLEL of different accounts go at a time. What a child has
rendered is passed on unread.

A child that reaches a limit, or dies, has its request refused; others do not notice. A server that dies, talks garbage
or is silent is replaced, and the requests that were with it are tried once more.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from mep.monitor.stages import plan
from mep.processes.answering import Client
from mep.processes.helper import HelperUnavailable
from mep.processes.message import Files
from mep.processes.printable import escaped
from mep.processes.render_protocol import (
    CPU,
    DIALOGUE,
    MAX_REASON,
    MEMORY,
    OUT_OF_MEMORY,
    PARALLEL,
    WALL,
    FromRenderer,
    ToRenderer,
)
from mep.processes.replaceable import Lost, Replaceable
from mep.processes.sealed_file import SealedFile
from mep.processes.time_limit import within
from mep.profile import functions
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import MAX_OPTIONS, StartEndpoint

ANSWER_LIMIT = 30.0
"""Seconds for one request. The server ends a child long before, so this is about the server itself."""


_UNAVAILABLE = "This endpoint cannot start user endpoints at the moment; please tell its administrators."


class Renderer:
    """Keeps one render server. `account` is what it runs as."""

    def __init__(self, account: Account) -> None:
        self._helper = Replaceable(lambda: Client.start(DIALOGUE, account))
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._places = asyncio.Semaphore(PARALLEL)
        self._newest: tuple[Profile, SealedFile] | None = None

    async def start(self) -> None:
        """Starts the server ahead of the first request. Raises HelperUnavailable."""
        await self._helper.running()

    async def render(
        self, profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
    ) -> RenderedConfig:
        """The configuration for this request.

        Raises:
            Refused: stage `options` (they break the schema, or a limit was reached) or `template`.
        """
        lock = self._locks.setdefault(account.uid, asyncio.Lock())
        async with lock, self._places:
            files: list[SealedFile] = []
            try:
                files.append(self._of(profile))
                files.append(_from_client("user_endpoint_config", command.user_options))
                files.append(_from_client("user_runtime", command.user_runtime))
                files.append(_sealed(_request_variables(profile, command, identity, account)))
                return await self._ask(files)
            except (HelperUnavailable, OSError) as e:
                raise Refused("template", str(e), _UNAVAILABLE) from None
            finally:
                files.clear()  # an error refers to this frame, and would keep them open

    async def stop(self) -> None:
        """Ends the server for good, and waits until it is gone. Requests under way are refused."""
        self._newest = None
        await self._helper.stop()

    async def _ask(self, files: Files) -> RenderedConfig:
        async def answer(server: Client) -> RenderedConfig:
            try:
                rendered: RenderedConfig = await within(ANSWER_LIMIT, server.ask(ToRenderer.RENDER, read, files))
            except asyncio.TimeoutError:
                server.give_up(f"it answered nothing for {ANSWER_LIMIT:g} s")
                raise Lost(server.lost) from None
            return rendered

        try:
            return await self._helper.ask(answer)
        except Lost:
            reason = "the render server died or was silent, and so did the one after it"
            raise Refused(
                "template", reason, "This endpoint could not process your request. Please submit again."
            ) from None

    def _of(self, profile: Profile) -> SealedFile:
        """What requests have in common, written once."""
        if self._newest is None or self._newest[0] is not profile:
            common = {
                "template": profile.template_name,
                "templates": profile.templates,
                "schema": profile.schema,
                "config": _config_variable(profile.config),
                "words_only": bool(functions.pins(profile.config.allowed_functions)),
            }
            self._newest = profile, _sealed(common)
        return self._newest[1]


def read(kind: int, body: Mapping[str, Any], files: Files) -> RenderedConfig | Refused:
    """What became of a request. Its child may have been taken over: whatever it wrote refuses this request at most.

    Raises ValueError: the server itself makes no sense.
    """
    if kind == FromRenderer.RENDERED:
        return RenderedConfig(files[0])
    if kind == FromRenderer.REFUSED:
        return _refused(files[0].read())
    if not -signal.NSIG < body["code"] < 256:
        raise ValueError("no exit code")
    if body["code"] == os.EX_TEMPFAIL:
        return Refused("template", "the render server could not start a process; see its limits", _UNAVAILABLE)
    how = _end(body["code"], late=body["late"])
    reason = f"Your user_endpoint_config is the reason: processing it {how}."
    return Refused("options", f"user_endpoint_config: processing it {how}", reason)


def _refused(said: bytes) -> Refused:
    match said.decode(errors="replace").split("\0", 2):
        case ["options" | "template" as stage, admin, user]:
            return Refused(stage, escaped(admin[:MAX_REASON]), escaped(user[:MAX_REASON]))
    reason = "Your user_endpoint_config is the reason: processing it failed."
    return Refused("options", "user_endpoint_config: the render server's child answered with garbage", reason)


def _end(code: int, *, late: bool) -> str:
    """How a child ended that gave no answer."""
    if late:
        return f"took more than {WALL:g} s"
    if code == -signal.SIGXCPU:
        return f"took more than {CPU} s of processor time"
    if code in (OUT_OF_MEMORY, -signal.SIGABRT):
        return f"took more than {MEMORY // 2**20} MiB of memory"
    return f"was ended by signal {-code}" if code < 0 else f"failed (exit code {code})"


def _from_client(name: str, text: str) -> SealedFile:
    """The file of a JSON text as it came. Raises Refused: it is too large."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_OPTIONS:
        reason = f"{name} is too large ({len(data)} bytes as JSON; the limit is {MAX_OPTIONS})"
        raise Refused("options", reason, f"Your {reason}.")
    return SealedFile.of(data)


def _sealed(value: object) -> SealedFile:
    return SealedFile.of(json.dumps(value).encode())


def _request_variables(
    profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
) -> dict[str, Any]:
    """Whom the request is for, and the variables that its user endpoint will have."""
    return {
        "mapped_identity": _identity_variable(identity, account),
        "env": plan.own_environment(profile, command, account),
    }


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
