"""Lives the endpoint's life, on one asyncio loop.

    connect -> first heartbeat (check-in) -> prepare (directory, endpoint_setup, engine, storage) -> take tasks
    every heartbeat period: idle? heartbeat
    stop (idle, signal, broken engine): take no more -> short grace -> answer the rest -> last heartbeat -> engine off

Losing the broker ends only the session: tasks go on, results are kept, and the next session sends them. The first
heartbeat goes out before anything heavy is imported; the engine is started after it, in a thread of its own.

`cli` makes the one endpoint of this process, and runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from uep import figures, idle, preparation, shell_command
from uep.audit import Audit
from uep.broker.channels import SessionChannels
from uep.broker.credentials import Credentials
from uep.broker.dispatcher import Dispatcher
from uep.broker.heartbeats import Heartbeats, set_title
from uep.broker.inbox import PREFETCH, PREFETCH_BYTES, Inbox
from uep.broker.outbox import Outbox
from uep.config import ConfigError, EndpointConfig
from uep.engines.base import Engine
from uep.handover import HandOver
from uep.report_pipe import ReportPipe
from uep.storage.opening import Storage
from wire.connection import Connection
from wire.errors import AccessRefused, BrokerError
from wire.reconnect import stay_connected
from wire.time_limit import within

log = logging.getLogger(__name__)

START_PATIENCE = 60.0
"""Seconds without a first heartbeat after which the endpoint gives up; the manager will start another."""
GRACE = 5.0
"""Seconds that running tasks get when the endpoint stops."""
FAREWELL = 10.0
"""Seconds for the last results and the last heartbeat."""
ENGINE_LOOK = 0.5
"""Seconds between looks whether the engine lives; meanwhile a dead one is given no tasks."""
ENGINE_STOP = 20.0
"""Seconds for the engine to end its helpers and batch jobs."""


class _Exchange(NamedTuple):
    """Tasks in, results out."""

    inbox: Inbox
    outbox: Outbox


class Endpoint:
    """One endpoint; `run` it once."""

    def __init__(self, name: str, handover: HandOver, config: EndpointConfig, engine: Engine) -> None:
        self._name = name
        self._handover = handover
        self._config = config
        self._engine = engine
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._credentials = Credentials(handover, config.amqp_port)
        self._heartbeats = Heartbeats(handover, config, engine)
        self._report = ReportPipe(handover.report_fd)
        self._history = idle.History()
        self._forwarded = 0
        self._connected_before = False
        self._told_trouble = False
        self._preparing: asyncio.Task[_Exchange] | None = None
        self._preparation: asyncio.Task[Storage] | None = None
        self._wait_told: asyncio.Task[None] | None = None
        self._exchange: _Exchange | None = None
        self._stop_requested = asyncio.Event()
        self._exit_code = os.EX_OK
        self._ending = ""

    async def run(self) -> int:
        """Runs until something stops the endpoint; returns the process's exit code."""
        self._watch_signals()
        asyncio.get_running_loop().call_later(START_PATIENCE, self._give_up_at_start)
        sessions = asyncio.ensure_future(stay_connected(self._open, self._session, self._trouble))
        ticks = asyncio.ensure_future(self._ticks())
        watch = asyncio.ensure_future(self._watch_engine())
        telling = asyncio.ensure_future(self._tell_figures())
        for task in (sessions, ticks):
            task.add_done_callback(self._ended)
        await self._stop_requested.wait()
        ticks.cancel()
        watch.cancel()
        telling.cancel()
        await self._wind_down()
        sessions.cancel()
        await asyncio.gather(_within(FAREWELL, "closing the connection", _quiet(sessions)), self._stop_engine())
        log.info("stopped, exit code %d", self._exit_code)
        if self._exit_code == os.EX_OK and (self._exchange is None or not self._exchange.outbox):
            self._report.tell("stopped")  # and not when results are left: a successor is to send them
        return self._exit_code

    # Why to stop

    def _stop(self, code: int, reason: str, detail: str = "") -> None:
        if self._stop_requested.is_set():
            return
        log.log(logging.INFO if code == os.EX_OK else logging.CRITICAL, "stopping: %s", reason)
        self._exit_code = code
        self._stop_requested.set()
        if code == os.EX_OK:
            self._report.tell("stopping")
        else:
            self._report.failed(reason, detail)
        if self._exchange is not None:
            self._exchange.inbox.close()  # now: a task that is taken a moment later would have the grace only

    def _stop_broken(self, failure: str) -> None:
        """Ends an endpoint whose engine is dead: at once, and so that another takes what waits."""
        reason = f"the engine can run nothing any more: {failure}"
        waiting = 0 if self._exchange is None else self._exchange.inbox.waiting
        if self._forwarded == 0:  # it has been of no use, the next would not be either
            self._stop(os.EX_SOFTWARE, reason)
            return
        log.critical("%s", reason)
        self._stop(os.EX_OK, "the engine is dead")
        if waiting:
            self._report.tell("again")

    def _stop_by_request(self) -> None:
        self._ending = "Its user has asked for that."
        self._stop(os.EX_OK, "the service asks for it, as its user wants")

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop, os.EX_OK, signal.Signals(number).name)

    def _give_up_at_start(self) -> None:
        if self._preparing is None:
            self._stop(os.EX_UNAVAILABLE, f"no contact with the broker within {START_PATIENCE:g} s")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("internal error", exc_info=task.exception())
            self._stop(os.EX_SOFTWARE, "internal error")

    # The connection

    async def _open(self) -> Connection:
        if self._connected_before:
            await self._credentials.refresh()
        self._connected_before = True
        return await Connection.open(self._credentials.last.heartbeats.connection_url)

    def _trouble(self, error: BrokerError, wait: float) -> None:
        hint = (
            " (expired credentials? the next start command refreshes them)" if isinstance(error, AccessRefused) else ""
        )
        log.warning("broker: %s%s; next attempt in %.1f s", error, hint, wait)
        if self._preparing is None and not self._told_trouble:
            self._told_trouble = True
            url = urlsplit(self._credentials.last.heartbeats.connection_url)
            self._report.trouble(f"broker {url.hostname}:{url.port}, since {time.strftime('%H:%M:%S')}: {error}")

    async def _session(self, connection: Connection) -> None:
        channels = SessionChannels(connection, self._credentials.last)
        try:
            await self._heartbeats.check_in(await channels.heartbeats(), channels.credentials.heartbeats)
            if self._preparing is None:
                self._preparing = asyncio.ensure_future(self._checked_in())
            await self._serve(channels, await asyncio.shield(self._preparing))
        finally:
            self._heartbeats.detach()
            await channels.close()

    async def _serve(self, channels: SessionChannels, exchange: _Exchange) -> None:
        """Sends results and takes tasks until a connection of the session is lost."""
        inbox, outbox = exchange
        try:
            outbox.attach(await channels.results(), channels.credentials.results)
            if not self._stop_requested.is_set():
                inbox.attach(await channels.consume(inbox.receive, PREFETCH, PREFETCH_BYTES))
                log.info("taking tasks from the broker")
            await channels.lost()
        finally:
            inbox.detach()
            outbox.detach()

    # Getting ready

    async def _checked_in(self) -> _Exchange:
        """Gets ready for tasks; once, after the first heartbeat."""
        log.info("checked in")
        self._report.tell("ready")
        preparing = preparation.prepare(self._config, self._engine, self._engine_thread, self._tell_wait)
        self._preparation = asyncio.ensure_future(preparing)
        await asyncio.wait((self._preparation,))
        if self._preparation.cancelled():  # told to stop meanwhile
            await _for_ever()
        if (error := self._preparation.exception()) is not None:  # whatever it is, the user hears of it
            await self._refuse(preparation.failure(error, self._engine))
        storage = self._preparation.result()
        outbox = Outbox(storage.journal, storage.results, self._count_forwarded)
        pinned = self._handover.pinned_functions
        dispatcher = Dispatcher(self._engine, self._audit(), self._allowed_functions(), pinned)
        inbox = Inbox(dispatcher, storage.journal, outbox, storage.interrupted, self._stop_by_request)
        self._history = idle.History(inbox.received, self._forwarded)
        self._heartbeats.engine_runs = True
        self._heartbeats.preparing = ""
        set_title(self._name)
        self._exchange = _Exchange(inbox, outbox)
        return self._exchange

    def _tell_wait(self, why: str) -> None:
        """Lets the user know, by `ps` and by the service, what the tasks wait for."""
        if self._heartbeats.preparing != why:
            log.info("%s", why)
            self._heartbeats.preparing = why
            set_title(self._name, why)
            self._wait_told = asyncio.ensure_future(self._heartbeats.beat())

    async def _refuse(self, failure: preparation.Failure) -> NoReturn:
        """Stops an endpoint that has checked in and cannot work, once the user has been told why. Never returns."""
        log.critical("cannot start: %s", failure.text)
        await self._heartbeats.start_failed(self._handover.to_user(failure.text))
        self._stop(failure.code, failure.text, failure.detail)
        await _for_ever()

    def _audit(self) -> Audit:
        loop = asyncio.get_running_loop()

        def stop(reason: str) -> None:
            """Stops the endpoint, from whatever thread wrote the record."""
            with contextlib.suppress(RuntimeError):  # the loop is closed: the endpoint has stopped
                loop.call_soon_threadsafe(self._stop, os.EX_SOFTWARE, reason)

        return Audit(self._handover.audit_fd, stop)

    def _allowed_functions(self) -> frozenset[str] | None:
        if self._handover.restricts_functions:
            return self._handover.allowed_functions
        return self._config.allowed_functions

    def _count_forwarded(self, _: str) -> None:
        if self._forwarded == 0:
            self._report.tell("working")
        self._forwarded += 1

    # Heartbeats and idleness

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_period)
            self._check_idle()
            await self._heartbeats.beat()

    async def _watch_engine(self) -> None:
        told = ""
        while self._engine.failure is None:
            if self._engine.trouble != told:
                told = self._engine.trouble
                self._report.jobs(told)
            await asyncio.sleep(ENGINE_LOOK)
        self._stop_broken(self._engine.failure)

    async def _tell_figures(self) -> None:
        """Tells the manager what the endpoint works on; again after a while, as the manager may be another one."""
        told: dict[str, Any] = {}
        looked = told_at = 0.0
        received, idle_since = 0, time.time()
        while True:
            await asyncio.sleep(figures.PERIOD)
            if self._exchange is None:
                continue
            now = time.monotonic()
            received, before = self._exchange.inbox.received, received
            here = received - self._forwarded
            idle_since = time.time() if here > 0 or received != before else idle_since
            asks = here > 0 and now - looked >= figures.ENGINE_PERIOD
            looked = now if asks else looked
            engine = await self._heartbeats.engine_figures(newest=asks)
            said = figures.figures(
                engine, self._engine.jobs, received, self._forwarded, None if here > 0 else idle_since
            )
            if (said != told or now - told_at >= figures.AGAIN) and self._report.figures(said):
                told, told_at = said, now

    def _check_idle(self) -> None:
        if self._exchange is None:  # not ready for tasks yet, which has time limits of its own
            return
        received = self._exchange.inbox.received
        was_idle = self._history.hard > 0
        self._history, verdict = idle.beat(
            self._config.idle, self._history, received, self._forwarded, revived=self._handover.revived
        )
        if verdict.stop is not None:
            self._stop(os.EX_OK, verdict.stop)
        elif verdict.beats_left is not None:
            left = verdict.beats_left * self._config.heartbeat_period
            set_title(self._name, f"idle; shut down in {left:,g} s")
        elif was_idle and self._history.hard == 0:
            set_title(self._name)

    # Stopping

    async def _wind_down(self) -> None:
        if self._preparation is not None and self._preparation.cancel():
            await asyncio.wait((self._preparation,), timeout=GRACE)
        if self._exchange is not None:
            inbox, outbox = self._exchange
            await _within(GRACE, "running tasks", inbox.emptied(), quiet=True)
            if left := inbox.abandon(self._ending or self._credentials.ending()):
                log.warning("%d tasks were still running: answered with an error", left)
            await _within(FAREWELL, "sending the last results", outbox.flushed())
        if self._exit_code not in (os.EX_CONFIG, os.EX_UNAVAILABLE):
            await _within(FAREWELL, "the last heartbeat", self._heartbeats.beat(active=False))

    async def _stop_engine(self) -> None:
        if self._preparing is None:
            return
        loop = asyncio.get_running_loop()
        stopped = loop.run_in_executor(self._engine_thread, self._engine.stop)
        await _within(ENGINE_STOP, "stopping the engine", stopped)
        if command := self._config.endpoint_teardown:
            try:
                await shell_command.run("endpoint_teardown", command, ENGINE_STOP)
            except ConfigError as e:
                log.warning("%s", e)


async def _within(seconds: float, what: str, doing: Awaitable[Any], *, quiet: bool = False) -> None:
    """Waits for `doing` at most so long; whatever goes wrong is logged, and the endpoint goes on stopping."""
    try:
        await within(seconds, doing)
    except asyncio.TimeoutError:
        if not quiet:
            log.warning("%s: not done after %g s", what, seconds)
    except Exception:
        log.exception("%s failed", what)


async def _for_ever() -> NoReturn:
    """Waits until cancelled: the session goes no further."""
    while True:
        await asyncio.Future()


async def _quiet(task: asyncio.Task[Any]) -> None:
    await asyncio.gather(task, return_exceptions=True)
