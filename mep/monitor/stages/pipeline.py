"""The way of a request, from its command to a running user endpoint, in the order of its stages.

`worker.consumer` calls `handle` once for each command; it never raises: a request ends as a running (or refreshed)
user endpoint, or as one refusal. What happens to user endpoints later is told to `endpoint_events`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol, TypeVar, cast

from mep.monitor.endpoints.credentials import NotSealed, Sealer
from mep.monitor.endpoints.kept import Kept, KeptEndpoints
from mep.monitor.endpoints.table import EndpointTable
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.stages import admission, plan
from mep.monitor.stages.audit_budget import AuditBudget
from mep.monitor.stages.breaker import Breaker
from mep.monitor.stages.decisions import Decisions
from mep.monitor.stages.fair_queue import MOST_WAITING, FairQueue, TooManyWait, WaitedTooLong
from mep.monitor.stages.keyed_lock import KeyedLock
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.orders import STAGE, Orders
from mep.monitor.stages.quota import Quota
from mep.monitor.stages.renderer import Renderer
from mep.monitor.stages.rights import Rights
from mep.monitor.stages.untold import Untold
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.credentials import Credentials
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import UNEXPECTED, Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")
PLACES = 64
"""Requests at a time whose account is looked up: each may hold a thread of the name service's helper."""
SHARE = 4
"""Of these at most for one requester."""
AGREEING = 3
"""Answers in a row that say that somebody has lost the right to run, before what runs is ended."""
PAUSE = 2.0
"""Seconds between these."""


class Mapper(Protocol):
    """Who maps identities: `identification`."""

    async def identify(
        self, command: StartEndpoint, documents: MappingDocuments, banned: Mapping[str, Refusal]
    ) -> MappedIdentity:
        """Maps the requester, who has none of the banned identities. Raises Refused."""


class Pipeline:
    """Handles requests. profile: gives the profile in force. quota: counts who starts how much."""

    def __init__(
        self,
        profile: Callable[[], Profile],
        mapper: Mapper,
        name_service: NameService,
        renderer: Renderer,
        sealer: Sealer,
        decisions: Decisions,
        budget: AuditBudget,
        breaker: Breaker,
        table: EndpointTable,
        rights: Rights,
        kept: KeptEndpoints,
        orders: Orders,
    ) -> None:
        self._profile = profile
        self._mapper = mapper
        self._name_service = name_service
        self._renderer = renderer
        self._sealer = sealer
        self._decisions = decisions
        self._budget = budget
        self._breaker = breaker
        self._table = table
        self._rights = rights
        self._kept = kept
        self._orders = orders
        self._untold = Untold(self._tell_again)
        self.quota = Quota()
        self._lock = KeyedLock()
        self._turns = FairQueue(PLACES, SHARE)
        self._undecided: set[asyncio.Task[None]] = set()
        """What handles commands of which nothing has been told or started yet."""

    async def handle(self, command: StartEndpoint) -> None:
        """One request, to its end. The caller acknowledges the command when this returns."""
        refusal: Refusal | None = None
        try:
            self._decisions.note("received", command.request_id, **_facts(command))
        except Exception:
            log.exception("[%s] unexpected error", command.request_id)
            refusal = UNEXPECTED
        task: asyncio.Task[None] | None = asyncio.current_task()
        if task is not None:
            self._undecided.add(task)
            task.add_done_callback(self._undecided.discard)
        await self._bring_to_end(command, refusal)

    def give_back(self) -> None:
        """Cancels `handle` wherever nothing has been decided yet: these commands come again to the next manager."""
        for task in self._undecided:
            task.cancel()

    async def reject(self, refusal: Refusal, request_id: str, credentials: Credentials | None) -> None:
        """A message that is no request. `credentials` say whom to tell, when that much of it could be read."""
        await self._decisions.refuse(refusal, request_id, credentials)

    async def revive(self, command: StartEndpoint) -> None:
        """The same request once more: the user endpoint that it found running ended without having been of use."""
        await self._bring_to_end(command)

    async def tell(self, refusal: Refusal, command: StartEndpoint) -> None:
        """A user endpoint that has died: a notice for its user, but not when a newer request has come for its name.

        That one starts a successor, which answers for the tasks that the dead one had taken and runs the others, or is
        refused, and then its notice is for all. The lock keeps a successor from starting what the notice would fail.
        """
        async with self._lock.hold(command.name) as held:
            if held and self._table.get(command.name) is None:
                await self._refuse(refusal, command, **_facts(command))
            else:
                await self._decisions.refuse(refusal, command.request_id, None, **_facts(command))

    async def close(self) -> None:
        """Gives up what could not be told."""
        await self._untold.close()

    async def recover(self, kept: Kept) -> None:
        """Brings the request of a user endpoint that a crash has ended to an end once more.

        A user endpoint of the same name answers the tasks that the other one had taken. Refused, if its user may not
        have it now.
        """
        command = kept.command
        still_runs = kept.ask_to_stop()
        self._decisions.note("recovering", command.request_id, endpoint=command.name, uid=kept.uid, running=still_runs)
        await self._bring_to_end(command, kept.refusal, earlier_uid=kept.uid)

    async def _bring_to_end(
        self, command: StartEndpoint, refusal: Refusal | None = None, earlier_uid: int | None = None
    ) -> None:
        """Starts or refreshes the user endpoint, or settles the one refusal of the request, an early one or its own.

        earlier_uid: of the account of the one that is to be succeeded, unless it has a newer successor already.

        The lock is held until a refusal has been told: nobody starts meanwhile what it would fail.
        """
        with self._orders.under_way(command):
            await self._bring_in_turn(command, refusal, earlier_uid)

    async def _bring_in_turn(self, command: StartEndpoint, refusal: Refusal | None, earlier_uid: int | None) -> None:
        async with self._lock.hold(command.name) as held:
            if not held:
                self._decisions.note("superseded", command.request_id, **_facts(command))
                return
            if earlier_uid is not None and self._table.get(command.name) is not None:
                return
            self._table.command_came(command.name)
            self._untold.drop(command.name)
            if refusal is None:
                refusal = await self._refusal_of(command, earlier_uid)
            if refusal is not None:
                await self._settle(command, refusal)

    async def _refusal_of(self, command: StartEndpoint, earlier_uid: int | None) -> Refusal | None:
        """Starts or refreshes the user endpoint. Turns whatever stops that into one refusal."""
        try:
            await self._start(command, earlier_uid)
        except Refused as e:
            return e.refusal
        except Exception:
            log.exception("[%s] unexpected error", command.request_id)
            return UNEXPECTED
        return None

    async def _settle(self, command: StartEndpoint, refusal: Refusal) -> None:
        """Ends a request that is refused: a failure notice, but not for a user endpoint that runs.

        The notice would fail all that it works on. So one whose right has ended is ended first; else it is refreshed
        for the same requester, who learns nothing worse than before. When it ends, the command is looked at again.
        """
        self._decided()
        running = self._table.get(command.name)
        if running is None:
            await self._refuse(refusal, command, **_facts(command))
            return
        await self._decisions.refuse(refusal, command.request_id, None, **_facts(command), pid=running.pid)
        if running.command.requester != command.requester:
            return
        killed = refusal == running.refusal  # by one order; the command came before it
        refreshed = await self._table.refresh(command, refusal if killed else None)
        if refreshed is None:  # it has ended meanwhile
            await self._refuse(refusal, command, **_facts(command))
            return
        self._kept.keep(refreshed)
        if refusal.ends_right:
            for endpoint in self._of_the_same(running, refusal):
                self._rights.withdraw(endpoint, refusal)

    async def _refuse(self, refusal: Refusal, command: StartEndpoint, **facts: object) -> None:
        """Tells its user; later, when that cannot be done now."""
        if await self._decisions.refuse(refusal, command.request_id, command.credentials, **facts):
            self._kept.forget(command.name)  # all its tasks have the refusal for an answer
        else:
            self._untold.keep(refusal, command)

    async def _tell_again(self, refusal: Refusal, command: StartEndpoint) -> bool:
        """Tries once more to tell its user. True when that is done, or there is another answer."""
        async with self._lock.hold(command.name) as held:
            if not held or self._table.get(command.name) is not None:
                return True
            told = await self._decisions.tell_again(refusal, command.request_id, command.credentials)
            if told:
                self._kept.forget(command.name)
            return told

    def _decided(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._undecided.discard(task)

    def _of_the_same(self, endpoint: UserEndpoint, refusal: Refusal) -> list[UserEndpoint]:
        """Finds whom else a lost right concerns: the requester's, or the account's."""
        if refusal.stage == STAGE:
            return [endpoint]  # the others were looked at when the order came
        if refusal.stage == "identity":
            return [other for other in self._table if other.command.requester == endpoint.command.requester]
        return [other for other in self._table if other.account.uid == endpoint.account.uid]

    async def _start(self, start: StartEndpoint, earlier_uid: int | None) -> None:
        profile, banned = self._profile(), self._orders.banned_identities()
        deadline = asyncio.get_running_loop().time() + profile.config.start_patience
        identity, owner = await self._who_surely(profile, start, deadline)
        if earlier_uid not in (None, owner.uid):
            raise admission.mapped_elsewhere(start.name, f"uid {earlier_uid}", owner.name)
        running = self._table.get(start.name)
        await self._decisions.decide(
            "mapped",
            start.request_id,
            None if running is None else running.pid,
            configuration=profile.digest[:12],
            endpoint=start.name,
            identity=identity.identity,
            username=start.requester_name,
            account=owner.name,
            uid=owner.uid,
            rule=identity.rule,
            mapping=profile.mapping.digest[:12],
        )
        self._orders.check(start, owner)
        running = await self._table.refresh(start)  # only now: it may have ended while all that was waited for
        if running is not None:
            self._kept.keep(running)
            self._decisions.note("refreshed", start.request_id, **_facts(start), pid=running.pid)
            return
        endpoint = await self._launch(profile, start, identity, owner, banned, deadline)
        self._obey(endpoint, banned)
        self._kept.keep(endpoint)
        self._decisions.note(
            "started",
            start.request_id,
            **endpoint.facts(),
            identity=identity.identity,
            username=start.requester_name,
            rule=identity.rule,
            scope=endpoint.scope,
        )

    def _obey(self, endpoint: UserEndpoint, banned: Mapping[str, Refusal]) -> None:
        """Ends a new one if an order to that came while its program was being executed."""
        try:
            self._orders.check(endpoint.command, endpoint.account)
        except Refused as e:
            self._decisions.note("killed", endpoint.command.request_id, **endpoint.facts(), **e.refusal.on_record())
            self._table.kill(endpoint, e.refusal)
        if self._orders.banned_identities() != banned:
            self._rights.review()

    async def _who_surely(
        self, profile: Profile, start: StartEndpoint, deadline: float
    ) -> tuple[MappedIdentity, Account]:
        """Finds out who the requester is. A no for a user endpoint that runs counts when it is said AGREEING times.

        Raises:
            Refused: stage `identity`, `account` or `admission`.
        """
        for attempt in range(1, AGREEING + 1):
            try:
                return await self._who(profile, start, deadline)
            except Refused as e:
                running = self._table.get(start.name)
                if running is None or not e.refusal.ends_right:
                    raise
                if attempt == AGREEING:
                    if await self._is_outage(e.refusal, running):
                        reason = f"{e.refusal.reason_for_admin}; but no other account is known now, either"
                        raise Refused(e.refusal.stage, reason, e.refusal.reason_for_user) from None
                    raise
                await asyncio.sleep(PAUSE)
        raise AssertionError("not reached")

    async def _who(self, profile: Profile, start: StartEndpoint, deadline: float) -> tuple[MappedIdentity, Account]:
        """Asks mapping, the name service when the requester's turn has come, and the policy."""
        identity = await self._mapper.identify(start, profile.documents, self._orders.banned_identities())
        policy = profile.config.accounts
        try:
            async with self._turns.place(start.requester, deadline):
                owner, group_ids = await _both(
                    self._name_service.find(identity.username), self._name_service.group_ids(policy.group_names())
                )
        except TooManyWait:
            raise Refused(
                "identity",
                f"{MOST_WAITING} requests of this requester wait for being looked up, and no more may. See whether the "
                "name service answers",
                f"{MOST_WAITING} of your requests wait here already, and no more may. Please submit again later.",
            ) from None
        except WaitedTooLong:
            raise Refused(
                "identity",
                f"{PLACES} requests are being looked up and take long, {self._turns.taken(start.requester)} of this "
                "requester; this one has waited in vain for its turn (key start_patience of config.yaml). "
                "See whether the name service answers",
                "This endpoint is busy with looking up accounts. Please submit again later.",
            ) from None
        admission.admit(owner, policy, group_ids)
        running = self._table.get(start.name)
        if running is not None and running.account.uid != owner.uid:
            raise admission.mapped_elsewhere(start.name, running.account.name, owner.name)
        return identity, owner

    async def _is_outage(self, refusal: Refusal, running: UserEndpoint) -> bool:
        """Finds out whether an account is unknown because none is: other accounts that run are not known, either."""
        if refusal.stage != "account":
            return False
        others = list({endpoint.account.name for endpoint in self._table} - {running.account.name})[:AGREEING]
        try:
            known = [await self._name_service.look_up(name) for name in others]
        except Refused:
            return True
        return bool(others) and not any(known)

    async def _launch(
        self,
        profile: Profile,
        start: StartEndpoint,
        identity: MappedIdentity,
        owner: Account,
        banned: Mapping[str, Refusal],
        deadline: float,
    ) -> UserEndpoint:
        """A new user endpoint, when its turn has come, unless its user has enough of them or has to wait longer.

        banned: the identities that the requester is known to have none of.
        """
        await self._orders.drain_over(start.requester, deadline)
        self._budget.check(owner.uid)
        self._breaker.check(owner.uid)
        try:
            uids = {endpoint.name: endpoint.account.uid for endpoint in self._table}
            with self.quota.start(start.name, owner.uid, profile.config.limits, uids, deadline) as turn:
                rendered = await self._renderer.render(profile, start, identity, owner)
                async with self._opened(start) as opened, turn() as place:
                    if (now := self._orders.banned_identities()) != banned:  # while it waited
                        await self._mapper.identify(start, profile.documents, now)
                    self._orders.check_start(start, owner)
                    self._decided()
                    planned = plan.make(profile, opened, identity, owner, rendered)
                    return await self._table.launch(planned, opened, place)
        except BaseException as e:
            if isinstance(e, Refused) and e.refusal.stage == "launch":
                self._breaker.died_early(owner.uid, e.refusal.reason_for_user)
            else:
                self._breaker.give_back(owner.uid)
            raise

    @contextlib.asynccontextmanager
    async def _opened(self, start: StartEndpoint) -> AsyncIterator[StartEndpoint]:
        """The command with credentials that are not sealed: it may have been on record already. Raises Refused."""
        try:
            credentials = await self._sealer.open(start.credentials)
        except NotSealed as e:
            reason = f"the credentials of {start.name} cannot be opened: {e}"
            user = "This endpoint cannot start anything at the moment. Please submit again later."
            raise Refused("manager", reason, user) from None
        try:
            yield dataclasses.replace(start, credentials=credentials)
        finally:
            if credentials is not start.credentials:
                credentials.file.close()


async def _both(first: Awaitable[A], second: Awaitable[B]) -> tuple[A, B]:
    """Waits for both at the same time, and for both when one fails."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    for answer in (one, other):
        if isinstance(answer, BaseException):
            raise answer
    return cast(tuple[A, B], (one, other))


def _facts(command: StartEndpoint) -> dict[str, object]:
    return {"endpoint": command.name, "identity": command.requester, "username": command.requester_name}
