"""One run of the manager: one thread, one event loop, woken by messages, child exits, timers and signals.

`daemon.serve` puts the parts together and calls `serve`, which returns when the manager has been stopped.

    SIGTERM, SIGINT   stop; user endpoints are ended, unless `on_stop: keep`; the service is told
    SIGUSR1           stop and leave them to the next manager: systemd sends it for a restart (RestartKillSignal)
    SIGHUP            read the profile again
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mep.monitor import last_run, log_file, shown
from mep.monitor.audit import AuditTrail
from mep.monitor.containment.containment import Containment
from mep.monitor.containment.systemd import ContainmentError
from mep.monitor.control_socket import Answer, ControlSocket
from mep.monitor.endpoints import record
from mep.monitor.endpoints.credentials import Sealer
from mep.monitor.endpoints.kept import Kept, KeptEndpoints
from mep.monitor.endpoints.table import EndpointTable
from mep.monitor.notify import notify, watchdog_period
from mep.monitor.order_requests import OrderRequests
from mep.monitor.profile_in_force import ProfileInForce, Reader
from mep.monitor.reload_requests import ReloadRequests
from mep.monitor.stages.audit_budget import AuditBudget
from mep.monitor.stages.breaker import Breaker
from mep.monitor.stages.decisions import Decisions, Notices
from mep.monitor.stages.endpoint_events import EndpointEvents
from mep.monitor.stages.name_service import NameService
from mep.monitor.stages.orders import Orders
from mep.monitor.stages.pipeline import Mapper, Pipeline
from mep.monitor.stages.renderer import Renderer
from mep.monitor.stages.rights import DocumentMapper, Rights
from mep.monitor.status import Status
from mep.monitor.status_socket import StatusSocket
from mep.privileged import become, kernel
from mep.processes import forked
from mep.processes.control_protocol import Kind, Outcome, Request
from mep.processes.named_sockets import Peer
from mep.processes.process import login_uid_of
from mep.profile.profile import Profile
from mep.request.unwanted import EndpointUnwanted

log = logging.getLogger(__name__)

_MOST_TOLD = 10
"""User endpoints whose jobs `mep status` names."""

FINISH_TIMEOUT = 20.0
"""Seconds that requests under way have to come to their end when the manager stops."""
RECOVERED_AT_ONCE = 4
"""User endpoints of before a crash that are started at once: requests of users who are there come in between."""
LAST_WORDS_TIMEOUT = 5.0
"""Seconds for the heartbeat that says good-bye, when there is a connection to be had."""


class Worker(Protocol):
    """Who takes commands from the broker and sends heartbeats: `worker_process`."""

    async def probe(self, status: StatusSocket) -> None:
        """Answers how the manager is from now on. Raises when the broker cannot be reached now."""

    def start(self, listener: Manager) -> Sequence[asyncio.Future[None]]:
        """Starts its sessions. The futures end only when the service refuses the endpoint for good
        (EndpointUnwanted), or something is broken in this program."""

    async def finish(self, timeout: float, *, goodbye: bool) -> None:
        """Takes no more commands; those under way have `timeout` seconds to come to their end.

        goodbye: the service is told that the manager goes for good.
        """

    async def close(self, timeout: float) -> None:
        """Waits until the last heartbeat has been sent, at most `timeout` seconds, and closes the connections."""


class Passwords(Notices, Sealer, Protocol):
    """Who reads credentials: `worker_process`."""


class AnyMapper(Mapper, DocumentMapper, Protocol):
    """Who maps identities: `stages.identification`."""

    async def start(self) -> None:
        """Returns when there is one that can be asked. Raises HelperUnavailable."""

    async def stop(self) -> None:
        """From now on nobody is mapped."""


@dataclass(frozen=True)
class Neighbours:
    """What the monitor needs of the other rooms: of helpers, which are processes of their own, and of those to be."""

    name_service: NameService
    mapper: AnyMapper
    renderer: Renderer
    passwords: Passwords
    reader: Reader


class Manager:
    """The monitor's parts, and what connects them.

    run_directory: this endpoint's folder below /run. kept_directory: its folder on disk, which outlives a crash.
    orders_directory: where the orders of admins are kept.
    refused: what is wrong with the edited profile, when `profile` is the one that was accepted last instead. readers:
    the group whose members may ask how the manager is.
    """

    def __init__(
        self,
        profile: Profile,
        endpoint_id: str,
        run_directory: Path,
        kept_directory: Path,
        orders_directory: Path,
        neighbours: Neighbours,
        refused: str = "",
        readers: int | None = None,
    ) -> None:
        config = profile.config
        self._endpoint_id = endpoint_id
        self._run_directory = run_directory
        self._kept = KeptEndpoints(kept_directory)
        self._stopping = asyncio.Event()
        self._keeps_endpoints = False
        self._goes_for_good = False
        self._asked_for = 0
        self._orders = orders = Orders(orders_directory, self._orders_changed)
        self._looking: asyncio.Task[None] | None = None
        self._status = Status(endpoint_id, run_directory / "status")
        self._asked = StatusSocket(
            run_directory,
            self._how_it_is,
            {"user_endpoints": self._shown_endpoints, "held_back": self._held_back},
            readers,
        )
        self._errors = shown.LastErrors()
        self._began = time.time()
        self._control = ControlSocket(run_directory, self._act)
        self._reloads = reloads = ReloadRequests(lambda: self._in_force.reload())
        self._in_force = ProfileInForce(profile, neighbours.reader, self._status, reloads.tell, self._profile_changed)
        if refused:
            self._status.profile(refused)
        self._audit = AuditTrail(
            config.audit_log_path,
            required=config.high_assurance,
            patience=lambda: self._in_force.profile.config.start_patience,
            second=(config.public_audit_log_path, endpoint_id) if config.public_audit_log_path else None,
        )
        self._name_service = neighbours.name_service
        self._mapper = neighbours.mapper
        self._renderer = neighbours.renderer
        self._containment = Containment(profile.name)
        self._decisions = decisions = Decisions(
            self._audit, neighbours.passwords, lambda: self._in_force.profile.digest[:12]
        )
        budget = AuditBudget(lambda: self._in_force.profile.config.limits)
        self._breaker = breaker = Breaker()
        self._events = EndpointEvents(
            decisions,
            self._audit,
            budget,
            breaker,
            lambda command: self.pipeline.revive(command),
            lambda refusal, command: self.pipeline.tell(refusal, command),
            self._kept,
            orders,
        )
        self._table = EndpointTable(
            run_directory,
            lambda: self._in_force.profile.config,
            self._containment,
            self._events,
            neighbours.passwords,
            self._status.user_endpoints,
        )
        self._rights = Rights(
            lambda: self._in_force.profile, neighbours.mapper, self._name_service, decisions, self._table, orders
        )
        self._order_requests = OrderRequests(orders, self._table, self._kept, decisions, self._rights.review)
        self.pipeline = Pipeline(
            lambda: self._in_force.profile,
            neighbours.mapper,
            self._name_service,
            self._renderer,
            neighbours.passwords,
            decisions,
            budget,
            breaker,
            self._table,
            self._rights,
            self._kept,
            orders,
        )

    def heartbeat_period(self) -> float:
        """Seconds between two heartbeats of the manager, as they are in force."""
        return self._in_force.profile.config.heartbeat_period

    def connected(self) -> None:
        """Called by the worker when commands can come."""
        log.info("endpoint %s consumes start commands", self._endpoint_id)
        notify(READY="1")
        self._status.connection("connected")

    def not_connected(self, reason: str) -> None:
        """Called by the worker when commands cannot come."""
        self._status.connection(f"not connected ({reason})")

    def shared(self, shared: bool) -> None:
        """Called by the worker when another instance of the endpoint takes commands, too, or does not any more."""
        self._status.instances("another instance of it takes commands, too: stop all but one" if shared else "")

    async def serve(self, worker: Worker) -> None:
        """Runs until a signal stops it; then ends or leaves the user endpoints. The service is told unless another
        manager comes next: at a restart, or after a failure.

        Raises:
            HelperUnavailable: the broker could not be reached at the start, or user endpoints could not be configured;
                nothing was consumed. Later losses are mended.
            EndpointUnwanted: the service refuses the endpoint; user endpoints are left to a next manager.
        """
        self._watch_signals()
        last_run.runs(self._run_directory)
        logging.getLogger().addHandler(self._errors)
        try:
            self._audit.start()
            await self._orders.load()
            self._answer_questions()
            await self._name_service.start()
            await self._mapper.start()
            await self._renderer.start()
            await worker.probe(self._asked)  # one that is not there is told at the start
            await self._look_at_containment()
            if kernel.is_root():  # else tasks have the login uid of whoever has started the manager: their own
                await _look_at_login_uid()
            if told := self._containment.note():
                log.info("%s", told)
            log.info("identity mapping with digest %.12s is in force", self._in_force.profile.mapping.digest)
            for endpoint in self._table.adopt():
                self._events.adopted(endpoint)
            self._order_requests.begin()
            self._rights.review()  # what was edited while no manager ran
            known = [folder.name for folder in record.folders(self._run_directory)]
            await self._run(worker, await self._kept.left(known))
        finally:
            await self._kept.flush()
            with contextlib.suppress(OSError):
                await self._orders.keep()
            await self._renderer.stop()
            await self._mapper.stop()
            await self._name_service.stop()
            self._containment.close()
            self._decisions.close()
            await self._audit.stop()
            self._audit.close()
            self._close_sockets()
            self._status.remove()
            logging.getLogger().removeHandler(self._errors)
        log.info("manager of %s stopped", self._endpoint_id)

    async def _run(self, worker: Worker, left: Sequence[Kept]) -> None:
        recovering = asyncio.ensure_future(self._recover(left))
        watchdog = asyncio.ensure_future(_feed_watchdog())
        mapping = asyncio.ensure_future(self._in_force.watch_mapping())
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        parts: list[asyncio.Future[Any]] = [*worker.start(self), mapping]
        await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        broken = [task for task in parts if task.done() and not self._stopping.is_set()]
        unwanted = next((e for task in broken if isinstance(e := task.exception(), EndpointUnwanted)), None)
        for task in broken:
            if unwanted is None:
                log.critical("internal error", exc_info=task.exception())
        if unwanted is not None:
            log.critical("stopping; user endpoints are left to the next manager: %s", unwanted)
        self._keeps_endpoints = self._keeps_endpoints or bool(broken)
        self._stopping.set()
        self._order_requests.close()
        await self._rights.close()
        self.pipeline.give_back()
        await worker.finish(FINISH_TIMEOUT, goodbye=self._goes_for_good)
        await _cancel(recovering)
        await self._leave_endpoints()
        await self.pipeline.close()
        await worker.close(LAST_WORDS_TIMEOUT)
        self._close_sockets()
        await _cancel(watchdog, mapping, stopping)
        await self._in_force.close()
        if unwanted is not None:
            raise unwanted
        if broken:  # a bug; a new process is better than one that only seems to work
            raise RuntimeError("the manager lost its commands, heartbeats or mapping unexpectedly")

    async def _recover(self, left: Sequence[Kept]) -> None:
        """Has the tasks answered of those that a crash of the host has ended: a few at once, and before their users
        come back. It goes on with the next whatever becomes of one; those that are not reached are for a next manager.
        """
        waiting = list(left)
        if waiting:
            log.warning("%d user endpoints ended with this host, or unfinished; they are recovered", len(waiting))

        async def take() -> None:
            while waiting and not self._stopping.is_set():
                await self.pipeline.recover(waiting.pop(0))

        await asyncio.gather(*(take() for _ in range(RECOVERED_AT_ONCE)))

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it loses its children's exit status
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._in_force.reload)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # as `daemon.main` has blocked them

    def _answer_questions(self) -> None:
        for command, opened in (("status", self._asked), ("reload", self._control)):
            try:
                opened.open()
            except OSError as e:
                log.error("`mep %s` cannot ask this manager: %s", command, e)

    def _close_sockets(self) -> None:
        self._asked.close()
        self._reloads.close()
        self._order_requests.close()
        self._orders.close()
        self._control.close()

    def _act(self, request: Request, caller: Peer, answer: Answer) -> None:
        """What somebody has asked for who may."""
        self._asked_for += 1
        number, what = f"control-{self._asked_for}", request.kind.name.lower()
        said = {"target": request.target or None, "until": request.until or None, "reason": request.reason or None}
        who = {"by_uid": caller.uid, "by_pid": caller.pid, "by_login_uid": login_uid_of(caller.pid)}
        self._decisions.note("asked", number, what=what, **who, **said)

        def told(outcome: Outcome, text: str) -> None:
            self._decisions.note("answered", number, what=what, outcome=outcome.name.lower())
            answer(outcome, text)

        if request.kind is Kind.RELOAD:
            self._reloads.ask(lambda taken, text: told(Outcome.DONE if taken else Outcome.REFUSED, text))
        else:
            self._order_requests.ask(request, caller, number, told)

    def _orders_changed(self) -> None:
        self._status.orders(self._orders.line())

    def _how_it_is(self) -> dict[str, object]:
        """The answer to `mep status`."""
        records = "; ".join(filter(None, (self._audit.trouble(), log_file.trouble())))
        more = {"records": records, "jobs": _jobs(self._table)}
        told = {name: text for name, text in more.items() if text}
        status, line = self._status.parts() | told, "; ".join([self._status.line(), *told.values()])
        return {
            "pid": os.getpid(),
            "endpoint": self._endpoint_id,
            "began": round(self._began),
            "configuration": self._in_force.profile.digest[:12],
            "status": status,
            "line": line,
            "errors": self._errors.lines(),
            "orders": self._orders.facts(),
            "lost_audit_lines": self._audit.lost_ever,
        }

    def _shown_endpoints(self) -> Iterator[dict[str, Any]]:
        return map(shown.user_endpoint, self._table)

    def _held_back(self) -> Iterator[dict[str, Any]]:
        limits = self._in_force.profile.config.limits
        return shown.held_back(self._breaker, self.pipeline.quota, limits, self._table)

    async def _look_at_containment(self) -> None:
        """Says what user endpoints are held to; loudly, if that is less than what the profile asks for."""
        try:
            log.info("%s", await self._containment.probe(self._in_force.profile.config.resources))
            self._status.containment("")
        except ContainmentError as e:
            log.error("limits are not in force: %s", e)
            self._status.containment(f"limits are not in force: {e}")

    async def _leave_endpoints(self) -> None:
        """To the next manager, or to their end."""
        if self._keeps_endpoints:
            self._table.release()
            await self._events.close()
            self._table.release()  # what was being revived
            if self._keeps_endpoints:
                return
            self._table.adopt()  # a signal that ends them came meanwhile
        self._events.begin_closing()
        self._table.stop()
        await self._events.close()
        await self._table.stop_all()  # also what was being revived
        await self._events.close()

    def _stop(self, number: int) -> None:
        """A signal to stop; a later one that ends user endpoints wins over one that keeps them."""
        if self._stopping.is_set() and number == signal.SIGUSR1:
            return
        self._goes_for_good = number != signal.SIGUSR1
        self._keeps_endpoints = number == signal.SIGUSR1 or self._in_force.profile.config.on_stop == "keep"
        what = "left to the next manager" if self._keeps_endpoints else "ended"
        log.info("%s: stopping; user endpoints are %s", signal.Signals(number).name, what)
        notify(STOPPING="1", STATUS=f"stopping; user endpoints are {what}")
        self._stopping.set()

    def _profile_changed(self, before: Profile) -> None:
        self._rights.review()
        if self._in_force.profile.config.resources == before.config.resources:
            return
        if self._looking is not None:
            self._looking.cancel()
        self._looking = asyncio.ensure_future(self._look_at_containment())


async def _look_at_login_uid() -> None:
    """Says if tasks have another login uid in the kernel's audit than their account's, or none."""
    try:
        problem = await forked.run(become.login_uid_problem)
    except OSError as e:
        problem = str(e)
    if problem is not None:
        log.warning("the login uid of user endpoints is not set to their account: %s", problem)


def _jobs(table: EndpointTable) -> str:
    """From which batch jobs no worker comes, in the words of their user endpoints."""
    told = [f"{each.account.name}, {each.name}: {each.jobs}" for each in table if each.jobs]
    more = [f"and {len(told) - _MOST_TOLD} user endpoints with such jobs"] if len(told) > _MOST_TOLD else []
    return "; ".join([*told[:_MOST_TOLD], *more])


async def _feed_watchdog() -> None:
    period = watchdog_period()
    while period is not None:
        notify(WATCHDOG="1")
        await asyncio.sleep(period)


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
