"""The way of a request, from its command to a running user endpoint, in the order of its stages.

`worker.consumer` calls `handle` once for each command; it never raises: a request ends as a running (or refreshed)
user endpoint, or as one refusal. What happens to user endpoints later is told to `endpoint_events`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from mep.monitor.endpoints.table import EndpointTable
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages import admission, plan
from mep.monitor.stages.breaker import Breaker
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.keyed_lock import KeyedLock
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.quota import Quota
from mep.monitor.stages.renderer import Renderer
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import UNEXPECTED, Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)


class Mapper(Protocol):
    """Who maps identities: `mapper.mapping`."""

    async def identify(self, command: StartEndpoint, documents: MappingDocuments) -> MappedIdentity:
        """Maps the requester. Raises Refused."""


class Pipeline:
    """Handles requests. profile: gives the profile in force."""

    def __init__(
        self,
        profile: Callable[[], Profile],
        mapper: Mapper,
        name_service: NameService,
        renderer: Renderer,
        decisions: Decisions,
        breaker: Breaker,
        table: EndpointTable,
    ) -> None:
        self._profile = profile
        self._mapper = mapper
        self._name_service = name_service
        self._renderer = renderer
        self._decisions = decisions
        self._breaker = breaker
        self._table = table
        self._quota = Quota()
        self._lock = KeyedLock()

    async def handle(self, command: StartEndpoint) -> None:
        """One request, to its end. The caller acknowledges the command when this returns."""
        await self._finish(command, self._receive(command))

    async def reject(self, refusal: Refusal, request_id: str, credentials: Mapping[str, Any] | None) -> None:
        """A message that is no request. `credentials` say whom to tell, when that much of it could be read."""
        await self._decisions.refuse(refusal, request_id, credentials)

    async def revive(self, command: StartEndpoint) -> None:
        """The same request once more: the user endpoint that it found running ended without having been of use."""
        await self._finish(command, self._start(command))

    async def _receive(self, command: StartEndpoint) -> None:
        self._decisions.decide(
            "received",
            command.request_id,
            endpoint=command.name,
            identity=command.requester,
            username=command.requester_name,
        )
        await self._start(command)

    async def _finish(self, command: StartEndpoint, work: Awaitable[None]) -> None:
        """Turns whatever stops the work into one refusal."""
        try:
            await work
        except Refused as e:
            await self._decisions.refuse(e.refusal, command.request_id, command.credentials)
        except Exception:
            log.exception("[%s] unexpected error", command.request_id)
            await self._decisions.refuse(UNEXPECTED, command.request_id, command.credentials)

    async def _start(self, start: StartEndpoint) -> None:
        async with self._lock.hold(start.name) as held:
            if not held:
                self._decisions.note("superseded", start.request_id, endpoint=start.name)
                return
            self._table.command_came(start.name)
            profile = self._profile()
            identity = await self._mapper.identify(start, profile.mapping)
            owner = await self._name_service.find(identity.username)
            policy = profile.config.accounts
            admission.admit(owner, policy, await self._name_service.group_ids(policy.group_names()))
            self._decisions.decide(
                "mapped",
                start.request_id,
                configuration=profile.digest[:12],
                endpoint=start.name,
                identity=identity.identity,
                username=start.requester_name,
                account=owner.name,
                uid=owner.uid,
                rule=identity.rule,
                mapping=profile.mapping.digest[:12],
            )
            running = self._table.get(start.name)  # only now: it may have ended while a mapping program was waited for
            if running is not None and running.account.uid == owner.uid:
                self._table.refresh(running, start)
                self._decisions.note("refreshed", start.request_id, endpoint=start.name, pid=running.pid)
                return
            if running is not None:
                reason = f"{start.name} runs as {running.account.name!r}, but the requester maps to {owner.name!r}"
                raise Refused("account", reason, "Your mapping to a local account has changed; try again later.")
            endpoint = await self._launch(profile, start, identity, owner)
            self._decisions.note(
                "started",
                start.request_id,
                **endpoint.facts(),
                identity=identity.identity,
                username=start.requester_name,
                rule=identity.rule,
                scope=endpoint.scope,
            )

    async def _launch(
        self, profile: Profile, start: StartEndpoint, identity: MappedIdentity, owner: Account
    ) -> UserEndpoint:
        """A new user endpoint, unless its user has to wait or has enough of them."""
        self._breaker.check(owner.uid)
        try:
            uids = {endpoint.name: endpoint.account.uid for endpoint in self._table}
            with self._quota.start(start.name, owner.uid, profile.config.limits, uids):
                rendered = await self._renderer.render(profile, start, identity, owner)
                return await self._table.launch(plan.make(profile, start, identity, owner, rendered), start)
        except BaseException as e:
            if isinstance(e, Refused) and e.refusal.stage == "launch":
                self._breaker.died_early(owner.uid, e.refusal.reason_for_user)
            else:
                self._breaker.give_back(owner.uid)
            raise
