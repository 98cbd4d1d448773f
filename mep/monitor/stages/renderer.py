"""From user options to a user endpoint's configuration, through a render server that runs without rights.

The server (`renderer.server`, here `render_server`) is one long-lived process that forks a child for each request.
Requests of one account go one after the other, so that nobody takes all places; PARALLEL of different accounts go at a
time.

A child that reaches a limit, or dies, has its request refused; others do not notice. A server that dies, talks garbage
or is silent is replaced, and the requests that were with it are tried once more.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from mep.monitor.stages import render_answer
from mep.monitor.stages.render_server import Answer, RenderServer, ServerLost
from mep.processes.helper import HelperUnavailable
from mep.processes.render_protocol import PARALLEL
from mep.processes.time_limit import within
from mep.profile.config import ManagerConfig
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import MAX_OPTIONS, StartEndpoint

ANSWER_LIMIT = 30.0
"""Seconds for one request. The server ends a child long before, so this is about the server itself."""


class Renderer:
    """Keeps one render server. `account` is what it runs as."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._places = asyncio.Semaphore(PARALLEL)
        self._starting = asyncio.Lock()
        self._server: RenderServer | None = None
        self._stopped = False

    async def start(self) -> None:
        """Starts the server ahead of the first request. Raises HelperUnavailable."""
        await self._running()

    async def render(
        self, profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
    ) -> RenderedConfig:
        """The configuration for this request.

        Raises:
            Refused: stage `options` (they break the schema, or a limit was reached) or `template`.
        """
        request = _request(profile, command, identity, account)
        lock = self._locks.setdefault(account.uid, asyncio.Lock())
        async with lock, self._places:
            return RenderedConfig(render_answer.read(await self._ask(request)))

    async def stop(self) -> None:
        """Ends the server for good, and waits until it is gone. Requests under way are refused."""
        self._stopped = True
        async with self._starting:
            if self._server is not None:
                self._server.end()
                await self._server.process.end()

    async def _ask(self, request: bytes) -> Answer:
        for _ in range(2):
            try:
                server = await self._running()
                return await within(ANSWER_LIMIT, server.exchange(request))
            except HelperUnavailable as e:
                raise Refused("template", str(e), render_answer.UNAVAILABLE) from None
            except asyncio.TimeoutError:
                server.end()
            except ServerLost:
                continue
        reason = "the render server died or was silent, and so did the one after it"
        raise Refused("template", reason, "This endpoint could not process your request. Please submit again.")

    async def _running(self) -> RenderServer:
        async with self._starting:
            if self._stopped:
                raise HelperUnavailable("the renderer has been stopped")
            if self._server is None or self._server.lost:
                self._server = await RenderServer.start(self._account)
            return self._server


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
    for name, text in (("user_endpoint_config", command.user_options), ("user_runtime", command.user_runtime)):
        _check_size(name, text)
    return json.dumps(request).encode()


def _check_size(name: str, text: str) -> None:
    if len(text) > MAX_OPTIONS:
        reason = f"{name} is too large ({len(text)} bytes as JSON; the limit is {MAX_OPTIONS})"
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
