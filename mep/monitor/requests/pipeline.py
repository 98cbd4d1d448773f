"""The way of a request, from its command to a running user endpoint, in the order of its stages.

`worker.consumer` calls `handle` once for each command; it never raises: a request ends as a running (or refreshed)
user endpoint, or as one refusal, which is logged, audited and told to the user here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from mep.monitor.audit import AuditError, AuditTrail
from mep.monitor.endpoints import run_folder
from mep.monitor.endpoints.table import EndpointTable, ExitReport
from mep.monitor.endpoints.user_endpoint import UserEndpoint
from mep.monitor.requests import admission, plan
from mep.monitor.requests.breaker import Breaker
from mep.monitor.requests.keyed_lock import KeyedLock
from mep.monitor.requests.name_service import NameService
from mep.monitor.requests.quota import Quota
from mep.monitor.requests.renderer import Renderer
from mep.profile.mapping_documents import MappingDocuments
from mep.profile.profile import Profile
from mep.request.account import Account
from mep.request.mapped_identity import MappedIdentity
from mep.request.refusal import Refusal, Refused
from mep.request.start_endpoint import StartEndpoint

log = logging.getLogger(__name__)

CLOSE_TIMEOUT = 35.0
"""Seconds that revivals and notices under way have when the manager stops; an exec may take 30 of them."""
_UNEXPECTED = Refusal(
    "manager",
    "unexpected error, see the log",
    "This endpoint failed unexpectedly; please tell its administrators.",
)

_STOPPING = Refusal(
    "manager",
    "stopped just after a start command came for it, and the manager is being stopped",
    "This endpoint is being stopped; please submit again later.",
)


class Mapper(Protocol):
    """Who maps identities: `mapper.mapping`."""

    async def identify(self, command: StartEndpoint, documents: MappingDocuments) -> MappedIdentity:
        """Maps the requester. Raises Refused."""


class Notices(Protocol):
    """Who tells users that a start failed: `worker.notices`."""

    async def send(self, credentials: Mapping[str, Any], text: str, request_id: str) -> bool:
        """Sends a notice with the credentials of its user endpoint; whether it was delivered."""


class Pipeline:
    """Handles requests. `profile` gives the profile in force, `table` the table of user endpoints."""

    def __init__(
        self,
        profile: Callable[[], Profile],
        mapper: Mapper,
        name_service: NameService,
        renderer: Renderer,
        audit: AuditTrail,
        notices: Notices,
        table: Callable[[], EndpointTable],
    ) -> None:
        self._profile = profile
        self._mapper = mapper
        self._notices = notices
        self._name_service = name_service
        self._renderer = renderer
        self._audit = audit
        self._table = table
        self._quota = Quota()
        self._breaker = Breaker()
        self._lock = KeyedLock()
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False
        self._missed: dict[str, tuple[UserEndpoint, asyncio.Event]] = {}

    async def handle(self, command: StartEndpoint) -> None:
        """One request, to its end. The caller acknowledges the command when this returns."""
        await self._finish(command, self._receive(command))

    async def reject(self, refusal: Refusal, request_id: str, credentials: Mapping[str, Any] | None) -> None:
        """A message that is no request. `credentials` say whom to tell, when that much of it could be read."""
        await self._refuse(refusal, request_id, credentials)

    async def _receive(self, command: StartEndpoint) -> None:
        self._decide(
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
            await self._refuse(e.refusal, command.request_id, command.credentials)
        except Exception:
            log.exception("[%s] unexpected error", command.request_id)
            await self._refuse(_UNEXPECTED, command.request_id, command.credentials)

    def adopted(self, endpoint: UserEndpoint) -> None:
        """A user endpoint that an earlier manager started is ours now."""
        self._note("adopted", endpoint.command.request_id, **_facts(endpoint))

    def held(self, endpoint: UserEndpoint) -> None:
        """Called by `table` when the process of a user endpoint exists, and waits. Raises Refused to end it."""
        self._decide("starting", endpoint.command.request_id, **_facts(endpoint), scope=endpoint.scope)

    def checked_in(self, endpoint: UserEndpoint) -> None:
        """Called by `table` when a user endpoint has sent its first heartbeat."""
        seconds = round(endpoint.checked_in_after or 0.0, 3)
        self._note("checked in", endpoint.command.request_id, endpoint=endpoint.name, pid=endpoint.pid, seconds=seconds)

    def working(self, endpoint: UserEndpoint) -> None:
        """Called by `table` when a user endpoint has sent its first result."""
        self._breaker.did_work(endpoint.account.uid)

    def task_records(self, endpoint: UserEndpoint, records: list[bytes]) -> None:
        """Called by `table` with what a user endpoint says of its tasks. What cannot be audited may not go on."""
        try:
            for record in records:
                self._audit.task(endpoint.command.request_id, endpoint.name, endpoint.account, record)
        except AuditError as e:
            log.critical("%s is ended: its tasks cannot be audited: %s", endpoint.name, e)
            self._table().end(endpoint)

    def exited(self, report: ExitReport) -> None:
        """Called by `table` when a user endpoint has ended."""
        endpoint, request_id = report.endpoint, report.endpoint.command.request_id
        if report.died_early:
            self._breaker.died_early(endpoint.account.uid, report.ending)
        self._note(
            "exited",
            request_id,
            **_facts(endpoint),
            ending=report.ending,
            seconds=round(report.seconds, 3),
            cpu_seconds=None if report.cpu_seconds is None else round(report.cpu_seconds, 3),
            peak_memory_kib=report.peak_memory,
        )
        if self._closing:
            if report.revive is not None:
                self._later(self._refuse(_STOPPING, request_id, endpoint.command.credentials))
        elif report.revive is not None:
            if report.unwatched:
                run_folder.remove(endpoint.folder)
            log.info(
                "[%s] %s ended just after a start command came for it; starting it again", request_id, endpoint.name
            )
            self._later(self._finish(report.revive, self._start(report.revive)))
        elif report.tell_user and report.unwatched:
            self._later(self._tell_if_it_stays_away(report))
        elif report.tell_user:
            self._later(self._refuse(_death(report), request_id, endpoint.command.credentials))

    def begin_closing(self) -> None:
        """From now on user endpoints end because the manager ends them: no revivals, no notices of deaths."""
        self._closing = True

    async def close(self) -> None:
        """Waits for the revivals and notices that are under way, but not for ever."""
        for _, over in self._missed.values():
            over.set()
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=CLOSE_TIMEOUT)
            for task in late:
                task.cancel()

    async def _start(self, start: StartEndpoint) -> None:
        async with self._lock.hold(start.name) as mine:
            if not mine:
                self._note("superseded", start.request_id, endpoint=start.name)
                return
            self._found(start.name)
            table, profile = self._table(), self._profile()
            identity = await self._mapper.identify(start, profile.mapping)
            owner = await self._name_service.find(identity.username)
            policy = profile.config.accounts
            admission.admit(owner, policy, await self._name_service.group_ids(policy.group_names()))
            self._decide(
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
            running = table.get(start.name)  # only now: it may have ended while a mapping program was waited for
            if running is not None and running.account.uid == owner.uid:
                table.refresh(running, start)
                self._note("refreshed", start.request_id, endpoint=start.name, pid=running.pid)
                return
            if running is not None:
                reason = f"{start.name} runs as {running.account.name!r}, but the requester maps to {owner.name!r}"
                raise Refused("account", reason, "Your mapping to a local account has changed; try again later.")
            endpoint = await self._launch(profile, start, identity, owner)
            self._note(
                "started",
                start.request_id,
                **_facts(endpoint),
                identity=identity.identity,
                username=start.requester_name,
                rule=identity.rule,
                scope=endpoint.scope,
            )

    async def _launch(
        self, profile: Profile, start: StartEndpoint, identity: MappedIdentity, owner: Account
    ) -> UserEndpoint:
        """A new user endpoint, unless its user has to wait or has enough of them."""
        table = self._table()
        self._breaker.check(owner.uid)
        try:
            uids = {endpoint.name: endpoint.account.uid for endpoint in table}
            with self._quota.start(start.name, owner.uid, profile.config.limits, uids):
                rendered = await self._renderer.render(profile, start, identity, owner)
                return await table.launch(plan.make(profile, start, identity, owner, rendered), start)
        except BaseException as e:
            if isinstance(e, Refused) and e.refusal.stage == "launch":
                self._breaker.died_early(owner.uid, e.refusal.reason_for_user)
            else:
                self._breaker.give_back(owner.uid)
            raise

    async def _tell_if_it_stays_away(self, report: ExitReport) -> None:
        """It ended while no manager ran: killed, or just idle. A successor reports what was lost by itself, and a
        command for one may be waiting; only when none comes is there nobody else to tell the user."""
        name, over = report.endpoint.name, asyncio.Event()
        self._missed[name] = (report.endpoint, over)
        try:
            await asyncio.wait_for(over.wait(), self._profile().config.mu_child_ep_grace_period_s)
            if name not in self._missed or not self._closing:
                return  # a command came; or the next manager finds it, as this one did
        except asyncio.TimeoutError:
            pass
        self._found(name)
        await self._refuse(_death(report), report.endpoint.command.request_id, report.endpoint.command.credentials)

    def _found(self, name: str) -> None:
        """Whoever missed the user endpoint `name` need not wait any longer."""
        if name in self._missed:
            endpoint, over = self._missed.pop(name)
            run_folder.remove(endpoint.folder)
            over.set()

    async def _refuse(self, refusal: Refusal, request_id: str, credentials: Mapping[str, Any] | None) -> None:
        log.warning("[%s] refused at stage %s: %s", request_id, refusal.stage, refusal.reason_for_admin)
        self._note("refused", request_id, stage=refusal.stage, reason=refusal.reason_for_admin)
        if credentials is not None:
            await self._notices.send(credentials, f"{refusal.reason_for_user} (request {request_id})", request_id)

    def _decide(self, event: str, request_id: str, **facts: object) -> None:
        """Puts a decision on record before it is carried out. Raises Refused, stage `audit`, when it must be there."""
        try:
            self._audit.record(event, request_id, **{"configuration": self._profile().digest[:12], **facts})
        except AuditError as e:
            reason = f"nothing starts that cannot be audited (high_assurance): {e}"
            user = "This endpoint cannot keep its audit trail at the moment, so it starts nothing. Please submit later."
            raise Refused("audit", reason, user) from None

    def _note(self, event: str, request_id: str, **facts: object) -> None:
        """Puts on record what has happened, and cannot be undone."""
        try:
            self._audit.record(event, request_id, **{"configuration": self._profile().digest[:12], **facts})
        except AuditError as e:
            log.critical("[%s] %r is not on record: %s", request_id, event, e)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _facts(endpoint: UserEndpoint) -> dict[str, object]:
    return {
        "configuration": endpoint.configuration,
        "endpoint": endpoint.name,
        "account": endpoint.account.name,
        "uid": endpoint.account.uid,
        "pid": endpoint.pid,
    }


def _death(report: ExitReport) -> Refusal:
    """A user endpoint that ended by itself and not cleanly, as a refusal of what was waiting for it."""
    endpoint = report.endpoint
    when = "before its first heartbeat" if report.before_check_in else "unexpectedly"
    log_file = f"endpoint.log in the folder {endpoint.name} of your Globus Compute folder"
    return Refusal(
        "running",
        f"{endpoint.name} of account {endpoint.account.name!r} (pid {endpoint.pid}) ended {when}: {report.ending}",
        f"Your user endpoint ended {when} ({report.ending}). Its own words are in {log_file} on that system.",
    )
