"""Credentials as the monitor holds them, and what only the worker and the user endpoint see in them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mep.monitor.endpoints.credentials import CredentialFile, NotSealed, new_key
from mep.processes.sealed_file import SealedFile
from mep.request.credentials import Credentials
from mep.request.start_endpoint import StartEndpoint
from mep.worker import sealing


def plain(credentials: Mapping[str, Any]) -> Credentials:
    return Credentials(SealedFile.of(json.dumps(credentials).encode()))


def inside(credentials: Credentials) -> dict[str, Any]:
    """The `amqp_creds`, sealed or not."""
    return sealing.read(credentials.file.read(), credentials.key)


def in_file(file: CredentialFile) -> dict[str, Any]:
    return sealing.read(file.path.read_bytes(), file.key)


def seal(credentials: Credentials, key: str = "", ending: str = "") -> Credentials:
    """With that key, or a new one."""
    key = key or new_key()
    return Credentials(SealedFile.of(sealing.seal(inside(credentials), key, ending)), key)


def with_sealed(command: StartEndpoint, key: str = "") -> StartEndpoint:
    return dataclasses.replace(command, credentials=seal(command.credentials, key))


def facts(command: StartEndpoint) -> dict[str, Any]:
    """All of the command, to be compared."""
    return {**dataclasses.asdict(dataclasses.replace(command, credentials=None)), "inside": inside(command.credentials)}  # type: ignore[arg-type]


class StubSealer:
    """Does in this process what the worker does. away: there is no worker. waits: until this is set, if it is there."""

    away = False
    waits: asyncio.Event | None = None

    async def seal(self, credentials: Credentials, key: str, ending: str = "") -> Credentials:
        await self._look()
        return seal(credentials, key, ending)

    async def open(self, credentials: Credentials) -> Credentials:
        await self._look()
        return plain(inside(credentials)) if credentials.key else credentials

    async def _look(self) -> None:
        if self.waits is not None:
            await self.waits.wait()
        if self.away:
            raise NotSealed("the worker is away")
