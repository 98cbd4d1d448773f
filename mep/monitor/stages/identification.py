"""From an identity set to the name of an account, without looking at what strangers wrote in the manager.

A helper decides (`mapper.server`). `mapper_client` talks to one; this sees to it that there is one that works, runs the
mapping programs that it wants asked, by their number, and writes all texts. A helper that is lost takes no right away:
who asks is refused for now, and what it owed is asked once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TypeAlias

from mep.monitor.stages.fair_queue import MOST_WAITING, FairQueue, TooManyWait, WaitedTooLong
from mep.monitor.stages.mapper_client import Banned, Decided, MapperClient, Nobody
from mep.processes.helper import HelperUnavailable
from mep.processes.mapper_protocol import MOST_IDENTITIES
from mep.processes.replaceable import Lost, Replaceable
from mep.profile.mapping_documents import MappingDocuments, MappingProgram
from mep.request import mapped_identity
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.mapping_program import RunProgram
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

PLACES, SHARE = 16, 4
"""Requests that the mapper has at a time, and of these at most for one requester."""
PATIENCE = 60.0
"""Seconds that a request waits for its turn."""
NOBODY_BANNED: Mapping[str, Refusal] = MappingProxyType({})

Run: TypeAlias = "Callable[[MappingProgram, str, bytes], Awaitable[bytes]]"
"""Runs a program for an endpoint, and returns what it has written. Raises ProgramFailed."""


class Identification:
    """Asks the mapper. account: what it runs as. endpoint_id: the manager's. run: what runs mapping programs."""

    def __init__(self, account: Account, endpoint_id: str, run: Run) -> None:
        self._endpoint_id = endpoint_id
        self._run = run
        self._helper = Replaceable(lambda: MapperClient.start(account, endpoint_id))
        self._turns = FairQueue(PLACES, SHARE)

    async def start(self) -> None:
        """Starts the mapper, and waits until it is ready. Raises HelperUnavailable."""
        await self._helper.running()

    async def stop(self) -> None:
        """Ends the mapper for good. Requests under way, and any later ones, are refused for now."""
        await self._helper.stop()

    async def identify(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal] = NOBODY_BANNED
    ) -> MappedIdentity:
        """Maps the requester. banned: what is told to who has one of these identities.

        Raises:
            Refused: one of `banned`; or stage `identity`: no account, more than one, or, without `ends_right`, no
                answer.
        """

        async def run(number: int, question: bytes) -> bytes:
            return await self._run(documents.programs[number], self._endpoint_id, question)

        return await self._decide(command, documents, banned, run)

    async def identify_without_programs(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal] = NOBODY_BANNED
    ) -> MappedIdentity:
        """Maps the requester by documents alone. banned: as for `identify`.

        Raises:
            Refused: one of `banned`; or stage `identity`: no account, or more than one, or, without `ends_right`, no
                answer, or a mapping program would have to be asked.
        """
        return await self._decide(command, documents, banned, None)

    async def _decide(
        self,
        command: StartEndpoint,
        documents: MappingDocuments,
        banned: Mapping[str, Refusal],
        run: RunProgram | None,
    ) -> MappedIdentity:
        names = tuple(banned)
        said = await self._ask(command, documents, names, run)
        if isinstance(said, MappedIdentity):
            return said
        if isinstance(said, Banned):
            raise Refused.of(banned[names[said.number]])
        if isinstance(said, Nobody):
            raise mapped_identity.nobody(command, said.why)
        raise mapped_identity.undecided(command, said.why)

    async def _ask(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Sequence[str], run: RunProgram | None
    ) -> Decided:
        if len(command.identity_set) > MOST_IDENTITIES:
            raise mapped_identity.undecided(command, f"its identity set has {len(command.identity_set)} bytes")
        try:
            return await self._helper.ask(
                lambda mapper: mapper.decide(command, documents, banned, run, lambda: self._turn(command.requester))
            )
        except Lost as e:
            why = f"the mapper was lost twice; the last time {e}"
        except HelperUnavailable as e:
            why = str(e)
        except TooManyWait:
            why = f"{MOST_WAITING} requests of this requester wait for being mapped, and no more may"
        except WaitedTooLong:
            why = f"{PLACES} requests are being mapped and take long; this one has waited {PATIENCE:g} s for its turn"
        except OSError as e:
            why = f"the mapper cannot be asked: {e.strerror}"
        raise mapped_identity.undecided(command, why)

    @asynccontextmanager
    async def _turn(self, requester: str) -> AsyncIterator[None]:
        async with self._turns.place(requester, asyncio.get_running_loop().time() + PATIENCE):
            yield
