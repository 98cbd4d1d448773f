"""The endpoint's life, on one asyncio loop.

    connect -> first heartbeat (check-in) -> prepare (directory, endpoint_setup, engine) -> take tasks
    every heartbeat period: idle? heartbeat
    stop (idle, signal, broken engine): take no more -> short grace -> answer the rest -> last heartbeat -> engine off

Losing the broker ends only the session: tasks go on, results are kept, and the next session sends them. The first
heartbeat goes out before anything heavy is imported; the engine is started after it, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from uep import idle
from uep.audit import Audit
from uep.broker.channels import SessionChannels
from uep.broker.credentials import Credentials
from uep.broker.heartbeats import Heartbeats, set_title
from uep.broker.inbox import PREFETCH, PREFETCH_BYTES, Inbox
from uep.broker.outbox import Outbox
from uep.config import ConfigError, EndpointConfig
from uep.engines.base import Engine
from uep.handover import HandOver
from uep.storage.directory_lock import DirectoryInUse, lock_directory
from uep.storage.journal import Journal
from uep.storage.result_store import ResultStore
from wire.amqp import AccessRefused, BrokerError, Connection, stay_connected

log = logging.getLogger(__name__)

EX_OK, EX_UNAVAILABLE, EX_SOFTWARE, EX_CONFIG = 0, 69, 70, 78

START_PATIENCE = 60.0
"""Seconds without a first heartbeat after which the endpoint gives up; the manager will start another."""
GRACE = 5.0
"""Seconds that running tasks get when the endpoint stops."""
FAREWELL = 10.0
"""Seconds for the last results and the last heartbeat."""
ENGINE_STOP = 20.0
"""Seconds for the engine to end its helpers and batch jobs."""


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
        self._history = idle.History()
        self._forwarded = 0
        self._connected_before = False
        self._inbox: Inbox | None = None
        self._outbox: Outbox | None = None

    async def run(self) -> int:
        """Runs until something stops the endpoint; the process's exit code."""
        self._stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._prepared: asyncio.Task[None] | None = None
        self._watch_signals()
        asyncio.get_running_loop().call_later(START_PATIENCE, self._give_up_at_start)
        link = asyncio.ensure_future(stay_connected(self._open, self._session, self._trouble))
        ticks = asyncio.ensure_future(self._ticks())
        for task in (link, ticks):
            task.add_done_callback(self._ended)
        code = await self._stopping
        ticks.cancel()
        await self._wind_down(code)
        link.cancel()
        await asyncio.gather(_within(FAREWELL, "closing the connection", _quiet(link)), self._stop_engine())
        log.info("stopped, exit code %d", code)
        if code == EX_OK:
            self._report("stopped")
        return code

    # Why to stop

    def _stop(self, code: int, reason: str) -> None:
        if not self._stopping.done():
            log.log(logging.INFO if code == EX_OK else logging.CRITICAL, "stopping: %s", reason)
            self._stopping.set_result(code)
            if code == EX_OK:
                self._report("stopping")
            if self._inbox is not None:
                self._inbox.close()  # now: a task that is taken a moment later would have the grace only

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop, EX_OK, signal.Signals(number).name)

    def _give_up_at_start(self) -> None:
        if self._prepared is None:
            self._stop(EX_UNAVAILABLE, f"no contact with the broker within {START_PATIENCE:g} s")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("internal error", exc_info=task.exception())
            self._stop(EX_SOFTWARE, "internal error")

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

    async def _session(self, connection: Connection) -> None:
        link = SessionChannels(connection, self._credentials.last)
        try:
            await self._heartbeats.check_in(await link.heartbeats(), link.credentials.heartbeats)
            if self._prepared is None:
                self._prepared = asyncio.ensure_future(self._checked_in())
            await asyncio.shield(self._prepared)
            await self._exchange(link)
        finally:
            self._heartbeats.detach()
            await link.close()

    async def _exchange(self, link: SessionChannels) -> None:
        """Results out and tasks in, until a connection is lost."""
        assert self._outbox is not None and self._inbox is not None
        try:
            self._outbox.attach(await link.results(), link.credentials.results)
            if not self._stopping.done():
                self._inbox.attach(await link.consume(self._inbox.receive, PREFETCH, PREFETCH_BYTES))
                log.info("taking tasks from the broker")
            await link.lost()
        finally:
            self._inbox.detach()
            self._outbox.detach()

    # Getting ready

    async def _checked_in(self) -> None:
        """Once, after the first heartbeat."""
        log.info("checked in")
        self._report("ready")
        try:
            await self._prepare()
        except ConfigError as e:
            await self._refuse(EX_CONFIG, str(e))
        except DirectoryInUse as e:
            await self._refuse(EX_UNAVAILABLE, str(e))
        except OSError as e:
            await self._refuse(EX_CONFIG, f"The endpoint's directory cannot be used: {e.strerror}")
        except Exception:
            log.exception("the engine did not start")
            await self._refuse(EX_SOFTWARE, f"The {self._engine.name} did not start; the endpoint's log says why.")

    async def _prepare(self) -> None:
        directory = self._engine.context.directory
        await lock_directory(directory, self._engine_thread)
        if self._config.endpoint_setup:
            await _run_command("endpoint_setup", self._config.endpoint_setup)
        await asyncio.get_running_loop().run_in_executor(self._engine_thread, self._engine.start)
        journal = Journal(directory / "open_tasks")
        self._outbox = Outbox(ResultStore(directory / "unacked_results", journal.sync), self._count_forwarded)
        self._inbox = Inbox(self._engine, journal, self._outbox, self._audit(), self._allowed_functions())
        self._history = idle.History(self._inbox.received, self._forwarded)
        self._heartbeats.engine_runs = True
        set_title(self._name)
        log.info("%s started", self._engine.name)

    async def _refuse(self, code: int, text: str) -> None:
        """The endpoint has checked in and finds that it cannot work: the user must hear why."""
        log.critical("cannot start: %s", text)
        await self._heartbeats.start_failed(text)
        self._stop(code, text)
        await asyncio.Future()  # the session goes no further

    def _report(self, word: str) -> None:
        """A word to the manager, which may be another one by now and then has not seen how the endpoint began."""
        if self._handover.report_fd is not None:
            try:
                os.write(self._handover.report_fd, f"{word}\n".encode())
            except OSError as e:
                log.warning("the manager cannot be told %r: %s", word, e.strerror)

    def _audit(self) -> Audit:
        return Audit(self._handover.audit_fd, lambda reason: self._stop(EX_SOFTWARE, reason))

    def _allowed_functions(self) -> frozenset[str] | None:
        if self._handover.restricts_functions:
            return self._handover.allowed_functions
        return self._config.allowed_functions

    def _count_forwarded(self, _: str) -> None:
        if self._forwarded == 0:
            self._report("working")
        self._forwarded += 1

    # Heartbeats and idleness

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_period)
            self._check_idle()
            if self._engine.failure is not None:
                self._stop(EX_SOFTWARE, f"the engine can run nothing any more: {self._engine.failure}")
            await self._heartbeats.beat()

    def _check_idle(self) -> None:
        received = 0 if self._inbox is None else self._inbox.received
        was_idle = self._history.hard > 0
        self._history, verdict = idle.beat(self._config.idle, self._history, received, self._forwarded)
        if verdict.stop is not None:
            self._stop(EX_OK, verdict.stop)
        elif verdict.beats_left is not None:
            set_title(self._name, verdict.beats_left * self._config.heartbeat_period)
        elif was_idle and self._history.hard == 0:
            set_title(self._name)

    # Stopping

    async def _wind_down(self, code: int) -> None:
        if self._inbox is not None and self._outbox is not None:
            await _within(GRACE, "running tasks", self._inbox.emptied(), quiet=True)
            if left := self._inbox.abandon():
                log.warning("%d tasks were still running: answered with an error", left)
            await _within(FAREWELL, "sending the last results", self._outbox.flushed())
        if code not in (EX_CONFIG, EX_UNAVAILABLE):
            await _within(FAREWELL, "the last heartbeat", self._heartbeats.beat(active=False))

    async def _stop_engine(self) -> None:
        if self._prepared is None:
            return
        loop = asyncio.get_running_loop()
        stopped = loop.run_in_executor(self._engine_thread, self._engine.stop)
        await _within(ENGINE_STOP, "stopping the engine", stopped)
        if self._config.endpoint_teardown:
            await _within(ENGINE_STOP, "teardown", _run_command("endpoint_teardown", self._config.endpoint_teardown))


async def _within(seconds: float, what: str, doing: Awaitable[Any], *, quiet: bool = False) -> None:
    """Waits for `doing` at most so long; whatever goes wrong is logged, and the endpoint goes on stopping."""
    try:
        await asyncio.wait_for(doing, seconds)
    except asyncio.TimeoutError:
        if not quiet:
            log.warning("%s: not done after %g s", what, seconds)
    except Exception:
        log.exception("%s failed", what)


async def _quiet(task: asyncio.Task[Any]) -> None:
    await asyncio.gather(task, return_exceptions=True)


async def _run_command(what: str, command: str) -> None:
    """Runs a shell command of the configuration; its output goes to the log. Raises ConfigError when it fails."""
    log.info("running %s", what)
    process = await asyncio.create_subprocess_shell(command, stdin=asyncio.subprocess.DEVNULL)
    code = await process.wait()
    if code:
        raise ConfigError(f"{what} failed with exit code {code}")
