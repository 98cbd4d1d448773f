"""What stands around the monitor in its tests: mapper, name service, renderer and notices without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from identity.runner import MapperError
from mep.mapper.mapping import IdentityMapper, first_banned, mapped
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.processes.sealed_file import SealedFile
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.request import mapped_identity
from mep.request.account import Account
from mep.request.credentials import Credentials
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.rendered_config import RenderedConfig
from mep.request.start_endpoint import StartEndpoint


@dataclass
class StubMapper:
    """Maps everybody to one name. waits: until this is set, when there is one."""

    answer: MappedIdentity | Exception
    waits: asyncio.Event | None = None
    asked: list[str] = field(default_factory=list)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def identify(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal]
    ) -> MappedIdentity:
        self.asked.append(command.request_id)
        if self.waits is not None:
            await self.waits.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def identify_without_programs(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal]
    ) -> MappedIdentity:
        return await self.identify(command, documents, banned)


class MapperHere:
    """Decides by documents alone, as the mapper does, without its process."""

    async def identify_without_programs(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal]
    ) -> MappedIdentity:
        names = tuple(banned)
        if (number := first_banned(command.identity_set, names)) is not None:
            raise Refused.of(banned[names[number]])
        mapper = IdentityMapper(documents.text, str(documents.path), command.endpoint_id)
        try:
            decision = await mapper.decide(command.identity_set, command.requester, None)
        except MapperError as e:
            raise mapped_identity.undecided(command, str(e)) from None
        identity = mapped(decision)
        if identity is None:
            raise mapped_identity.nobody(command, str(decision.refusal))
        return identity


@dataclass
class StubNameService:
    accounts: dict[str, Account]
    started: int = 0
    stopped: int = 0

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    async def find(self, username: str) -> Account:
        if username not in self.accounts:
            raise Refused("account", f"no account {username!r}", "Your account does not exist.", ends_right=True)
        return self.accounts[username]

    async def look_up(self, username: str) -> Account | None:
        return self.accounts.get(username)

    async def group_ids(self, names: Iterable[str]) -> dict[str, int | None]:
        return dict.fromkeys(names)


@dataclass
class StubRenderer:
    fails: Exception | None = None
    started: int = 0
    stopped: int = 0

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    async def render(
        self, profile: Profile, command: StartEndpoint, identity: MappedIdentity, account: Account
    ) -> RenderedConfig:
        if self.fails is not None:
            raise self.fails
        return RenderedConfig(SealedFile.of(b"engine: {}"))


@dataclass
class StubNotices:
    """Has each text, with the request's id."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    delivered: bool = True
    waits: asyncio.Event | None = None

    async def send(self, credentials: Credentials, text: str, request_id: str) -> bool:
        if self.waits is not None:
            await self.waits.wait()
        self.sent.append((request_id, text))
        return self.delivered

    async def send_again(self, credentials: Credentials, text: str) -> bool:
        self.sent.append(("again", text))
        return self.delivered

    def decided(self, event: str, request_id: str, facts: Mapping[str, object]) -> None:
        self.told.append((event, request_id))


@dataclass
class StubKept:
    """Has what is kept for a crash, by its name: the id of the newest request."""

    requests: dict[str, str] = field(default_factory=dict)

    def keep(self, endpoint: UserEndpoint) -> None:
        self.requests[endpoint.name] = endpoint.command.request_id

    def forget(self, name: str) -> None:
        self.requests.pop(name, None)
