"""A manager with a stub worker, and real processes as its user endpoints."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from lab.waiting import aiountil
from mep.daemon.handed import Tried
from mep.monitor.manager import Manager, Neighbours
from mep.monitor.status_socket import StatusSocket
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.reader import files, loader
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from tests.mep.credentials import StubSealer
from tests.mep.monitor.endpoints.neighbours import Earlier
from tests.mep.monitor.stubs import StubMapper, StubNameService, StubNotices, StubRenderer


class StubReader:
    """The files as they are."""

    async def profile(self, directory: Path) -> Tried:
        return Tried(loader.load(directory), ())

    async def mapping(self, path: Path) -> MappingDocuments:
        return files.read_mapping(path)

    def keep(self, profile: Profile) -> None:
        pass


class StubPasswords(StubNotices, StubSealer):
    """Both of the worker's parts."""

    def __init__(self) -> None:
        StubNotices.__init__(self)
        StubSealer.__init__(self)


class StubWorker:
    """Is connected at once.

    told: what the manager asks of it, in order. meanwhile: a signal that comes while it finishes.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.unreachable: Exception | None = None
        self.meanwhile: signal.Signals | None = None
        self.commands: asyncio.Future[None] | None = None
        self.status: StatusSocket

    async def probe(self, status: StatusSocket) -> None:
        self.told.append("probe")
        self.status = status
        if self.unreachable is not None:
            raise self.unreachable

    def start(self, listener: Manager) -> Sequence[asyncio.Future[None]]:
        self.told.append("start")
        self.commands = asyncio.get_running_loop().create_future()
        listener.connected()
        return [self.commands]

    async def finish(self, timeout: float, *, goodbye: bool) -> None:
        self.told.append("finish, good-bye" if goodbye else "finish")
        if self.meanwhile is not None:
            taken = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, taken.set)
            send(self.meanwhile)
            send(signal.SIGUSR2)  # taken after the one before
            await taken.wait()

    async def close(self, timeout: float) -> None:
        self.told.append("close")


class Site:
    """A manager, and what stands around it."""

    def __init__(self, folder: Path, profile: Profile, identity: MappedIdentity, account: Account) -> None:
        self.run_directory = folder / "run"
        self.run_directory.mkdir()
        self.kept, self.orders = folder / "kept", folder / "orders"
        self.status = self.run_directory / "status"
        self._audit = folder / "audit.log"
        self.profile = self.with_config(profile, audit_log_path=self._audit)
        self.names, self.renderer = StubNameService({account.name: account}), StubRenderer()
        self.notices = StubPasswords()
        self.worker = StubWorker()
        self.earlier = Earlier(self.run_directory, account)
        self._identity = identity

    @staticmethod
    def with_config(profile: Profile, **config: object) -> Profile:
        return dataclasses.replace(profile, config=dataclasses.replace(profile.config, **config))  # type: ignore[arg-type]

    def serve(self, story: Callable[[Manager], Awaitable[None]]) -> None:
        """Runs a manager beside the story, until the story has stopped it."""
        parts: Any = (self.names, StubMapper(self._identity), self.renderer, self.notices, StubReader())

        async def serve() -> None:
            folders = self.run_directory, self.kept, self.orders
            manager = Manager(self.profile, "an-endpoint-id", *folders, Neighbours(*parts))
            serving = asyncio.ensure_future(manager.serve(self.worker))
            telling = asyncio.ensure_future(story(manager))
            await asyncio.wait([serving, telling], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await asyncio.wait_for(serving, 60)
            await telling
            await serving
            assert asyncio.all_tasks() == {asyncio.current_task()}, "something goes on"

        asyncio.run(serve())

    async def serves(self) -> None:
        await aiountil(lambda: self.status.exists() and "connected" in self.status.read_text(), "the manager serves")

    def trail(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._audit.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
