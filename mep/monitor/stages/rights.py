"""The right to run ends when it is taken away: user endpoints of accounts that may not have them any more are ended.

`Manager` calls `review` when another profile or mapping is in force, and at its start; `pipeline` calls `withdraw` for
who has lost the right by what the name service, or a mapping program, says. A review asks documents, and for the ids of
groups, and runs no program; where the answer depends on one, or is not to be had, nothing is ended.

A user endpoint is asked to stop, so it ends its tasks and batch jobs. After its end its newest command is looked at
once more: it is refused then, and who waits is told when nothing of what is told as failed can run any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from mep.monitor.endpoints import lifecycle
from mep.monitor.endpoints.table import EndpointTable
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages import admission
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.orders import STAGE, Orders
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

AT_ONCE = 16
"""User endpoints that are looked at at a time: their answers come one after the other, and nobody waits for each."""


class DocumentMapper(Protocol):
    """Who maps identities by documents alone: `identification`."""

    async def identify_without_programs(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal]
    ) -> MappedIdentity:
        """Maps the requester. Raises Refused; without `ends_right` when a mapping program would have to say."""


class Rights:
    """Watches over the right of what runs. profile: gives the profile in force."""

    def __init__(
        self,
        profile: Callable[[], Profile],
        mapper: DocumentMapper,
        name_service: NameService,
        decisions: Decisions,
        table: EndpointTable,
        orders: Orders,
    ) -> None:
        self._profile = profile
        self._mapper = mapper
        self._name_service = name_service
        self._decisions = decisions
        self._table = table
        self._orders = orders
        self._reviewing: asyncio.Task[None] | None = None
        self._grace: dict[int, asyncio.TimerHandle] = {}
        """By the identity of the object: a successor has the same name. Each handle holds its object."""

    def review(self) -> None:
        """Looks at all that run, in the background. A later call takes the place of one that is under way."""
        if self._reviewing is not None:
            self._reviewing.cancel()
        self._reviewing = asyncio.get_running_loop().create_task(self._review())

    def withdraw(self, endpoint: UserEndpoint, refusal: Refusal) -> None:
        """Ends a user endpoint that may not run any more, after the grace that the profile gives."""
        if endpoint.ending or endpoint.state in lifecycle.ASKED_TO_STOP or id(endpoint) in self._grace:
            return
        ordered = refusal.stage == STAGE  # by an admin, who wants it now
        grace = 0 if ordered else self._profile().config.accounts.withdrawal_grace
        command = endpoint.command
        self._decisions.note(
            "withdrawn",
            command.request_id,
            **endpoint.facts(),
            identity=command.requester,
            username=command.requester_name,
            stage=refusal.stage,
            reason=refusal.reason_for_admin,
            grace=grace or None,
        )
        why = f"{refusal.reason_for_user} (request {command.request_id})"
        if not grace:
            self._table.end(endpoint, why)
            return
        self._grace[id(endpoint)] = asyncio.get_running_loop().call_later(grace, self._grace_is_over, endpoint, why)

    async def close(self) -> None:
        """Ends a review that is under way, and every grace: the next manager looks again at its start."""
        for later in self._grace.values():
            later.cancel()
        self._grace.clear()
        if self._reviewing is not None:
            self._reviewing.cancel()
            await asyncio.gather(self._reviewing, return_exceptions=True)

    def _grace_is_over(self, endpoint: UserEndpoint, why: str) -> None:
        del self._grace[id(endpoint)]
        self._table.end(endpoint, why)  # nothing happens when it has ended

    async def _review(self) -> None:
        try:
            profile = self._profile()
            ids = await self._group_ids(profile)
            waiting = list(self._table)

            async def take() -> None:
                while waiting:
                    await self._look(waiting.pop(), profile, ids)

            await asyncio.gather(*(take() for _ in range(AT_ONCE)))
        except Exception:
            log.exception("the right to run could not be reviewed")

    async def _look(self, endpoint: UserEndpoint, profile: Profile, ids: dict[str, int | None] | None) -> None:
        """Looks at one; what goes wrong with it is nobody else's."""
        try:
            refusal = await self._lost(endpoint, profile, ids)
        except Exception:
            log.exception("the right of %s to run could not be reviewed", endpoint.name)
            return
        if refusal is not None:
            self.withdraw(endpoint, refusal)
        elif (later := self._grace.pop(id(endpoint), None)) is not None:
            later.cancel()
            log.info("%s has the right to run again", endpoint.name)

    async def _group_ids(self, profile: Profile) -> dict[str, int | None] | None:
        """Asks for the groups of the policy. None: no answer, so nothing is decided by groups."""
        try:
            return await self._name_service.group_ids(profile.config.accounts.group_names())
        except Refused as e:
            log.warning("who runs is not looked at by groups: %s", e.refusal.reason_for_admin)
            return None

    async def _lost(
        self, endpoint: UserEndpoint, profile: Profile, ids: dict[str, int | None] | None
    ) -> Refusal | None:
        """Finds out why the user endpoint may not run any more, if documents and policy say so for sure."""
        try:
            banned = self._orders.banned_identities()
            identity = await self._mapper.identify_without_programs(endpoint.command, profile.documents, banned)
            if identity.username != endpoint.account.name:
                return admission.mapped_elsewhere(endpoint.name, endpoint.account.name, identity.username).refusal
        except Refused as e:
            if e.refusal.ends_right:
                return e.refusal
        try:
            admission.admit(endpoint.account, profile.config.accounts, ids)
            self._orders.check(endpoint.command, endpoint.account)
        except Refused as e:
            if e.refusal.ends_right:
                return e.refusal
        return None
