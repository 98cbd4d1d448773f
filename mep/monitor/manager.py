"""The manager's event loop: one thread, woken by AMQP, child exits, timers and signals. Nothing is polled.

`run` is called by `cli` once the endpoint is registered, and returns when the manager has been stopped.

    SIGTERM, SIGINT   stop; user endpoints are ended, unless `on_stop: keep`
    SIGUSR1           stop and leave them to the next manager: systemd sends it for a restart (RestartKillSignal)
    SIGHUP            read the profile again
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import setproctitle

from mep.monitor.audit import AuditTrail
from mep.monitor.containment.containment import Containment, ContainmentError
from mep.monitor.endpoints.table import Children, Listener
from mep.monitor.notify import Status, notify, watchdog_period
from mep.monitor.requests.name_service import Directory
from mep.monitor.requests.pipeline import Pipeline
from mep.monitor.requests.renderer import Renderer
from mep.profile import config
from mep.profile.config import ConfigError
from mep.reader import loader as profile
from mep.reader.loader import Profile
from mep.registration.registration import Registration
from wire.amqp import BrokerError, Connection, Delivery, Publisher, stay_connected
from wire.consumer import Consumer
from wire.messages import StatusReport, pack

log = logging.getLogger(__name__)

PREFETCH = 64
"""Requests under way at once; the broker holds back the rest."""
FINISH_TIMEOUT = 20.0
"""Seconds that requests under way have to come to their end when the manager stops."""
MAPPING_PERIOD = 5.0
"""Seconds between two looks at the mapping file; it may lie on a network, where nobody tells of changes."""
LAST_WORDS_TIMEOUT = 5.0
"""Seconds for the heartbeat that says good-bye, when there is a connection to be had."""


def run(site: Profile, registration: Registration, run_directory: Path) -> None:
    """Serves requests until a signal stops it. `run_directory` is this endpoint's folder below /run.

    Raises:
        BrokerError: the broker could not be reached at the start; nothing was consumed. Later losses are mended.
        WorkerUnavailable: user endpoints could not be configured; nothing was consumed.
        OSError: the audit trail cannot be opened.
    """
    setproctitle.setproctitle(f"mep: manager of {site.name} ({registration.endpoint_id})")
    loop = _Loop()
    try:
        loop.run_until_complete(_Manager(site, registration, run_directory).serve())
    finally:
        loop.close()


class _Loop(asyncio.SelectorEventLoop):
    """Looks host names up without a lasting thread.

    asyncio would keep a pool of threads for it, and a process that forks should have none. Addresses need no look-up;
    for names a thread lives as long as the look-up: at each new connection, one for a failure notice included. A child
    that is forked meanwhile may hang in a lock of the C library's; its start is given up then, and its user told.
    """

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        try:
            return socket.getaddrinfo(host, port, **{**options, "flags": socket.AI_NUMERICHOST})
        except socket.gaierror:
            return await self._look_up(host, port, options)

    async def _look_up(self, host: Any, port: Any, options: dict[str, Any]) -> Any:
        answer: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                found, error = socket.getaddrinfo(host, port, **options), None
            except OSError as e:
                found, error = None, e
            self.call_soon_threadsafe(lambda: _settle(answer, found, error))

        threading.Thread(target=work, daemon=True).start()
        return await answer


def _settle(answer: asyncio.Future[Any], found: Any, error: OSError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(found)
    else:
        answer.set_exception(error)


class _Manager:
    """One run of the manager: its parts, and what connects them."""

    def __init__(self, site: Profile, registration: Registration, run_directory: Path) -> None:
        self._profile = site
        self._registration = registration
        self._stopping = asyncio.Event()
        self._keeps_children = False
        self._handlers: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._status = Status(registration.endpoint_id, run_directory / "status")
        self._audit = AuditTrail(site.config.audit_log_path, required=site.config.high_assurance)
        self._directory = Directory(site.config.render_account)
        self._renderer = Renderer(site.config.render_account)
        self._containment = Containment(site.name)
        self._pipeline = Pipeline(
            lambda: self._profile,
            registration.endpoint_id,
            self._directory,
            self._renderer,
            self._audit,
            lambda: self._children,
        )
        listener = Listener(
            held=self._pipeline.held,
            checked_in=self._pipeline.checked_in,
            working=self._pipeline.working,
            records=self._pipeline.task_records,
            exited=self._pipeline.exited,
            count=self._status.user_endpoints,
        )
        self._children = Children(run_directory, lambda: self._profile.config, self._containment, listener)

    async def serve(self) -> None:
        """Runs until a signal stops it; then ends or leaves the user endpoints, and says good-bye to the service."""
        command_url = self._registration.commands.connection_url
        heartbeat_url = self._registration.heartbeats.connection_url
        self._watch_signals()
        try:
            await self._directory.start()
            await self._renderer.start()
            await (await Connection.open(command_url)).close()  # one that is not there is told at the start
            await self._look_at_containment()
            log.info("identity mapping with digest %.12s is in force", self._profile.mapper.digest)
            for child in self._children.adopt():
                self._pipeline.adopted(child)
            heartbeats = asyncio.ensure_future(self._stay_connected(heartbeat_url, self._beat, "heartbeats"))
            commands = asyncio.ensure_future(self._stay_connected(command_url, self._consume, "commands"))
            watchdog = asyncio.ensure_future(self._feed_watchdog())
            mapping = asyncio.ensure_future(self._watch_mapping())
            stopping = asyncio.ensure_future(self._stopping.wait())
            parts = (heartbeats, commands, mapping)
            await asyncio.wait({stopping, *parts}, return_when=asyncio.FIRST_COMPLETED)
            broken = [task for task in parts if task.done() and not self._stopping.is_set()]
            for task in broken:
                log.critical("internal error", exc_info=task.exception())
            self._keeps_children = self._keeps_children or bool(broken)
            self._stopping.set()
            await self._finish_requests()
            await _cancel(commands)
            await self._leave_children()
            await asyncio.wait({heartbeats}, timeout=LAST_WORDS_TIMEOUT)
            await _cancel(heartbeats, watchdog, mapping, stopping)
            if broken:  # a bug; a new process is better than one that only seems to work
                raise RuntimeError("the manager lost its commands, heartbeats or mapping unexpectedly")
        finally:
            await self._renderer.stop()
            await self._directory.stop()
            self._containment.close()
            self._audit.close()
            self._status.remove()
        log.info("manager of %s stopped", self._registration.endpoint_id)

    def _watch_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever started us may have blocked what stops us
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it loses its children's exit status
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    async def _look_at_containment(self) -> None:
        """Says what user endpoints are held to; loudly, if that is less than what the profile asks for."""
        try:
            log.info("%s", await self._containment.probe(self._profile.config.resources))
            self._status.containment("")
        except ContainmentError as e:
            log.error("limits are not in force: %s", e)
            self._status.containment(f"limits are not in force: {e}")

    async def _leave_children(self) -> None:
        """To the next manager, or to their end."""
        if self._keeps_children:
            self._children.release()
            await self._pipeline.close()
            self._children.release()  # what was being revived
            if self._keeps_children:
                return
            self._children.adopt()  # a signal that ends them came meanwhile
        self._pipeline.begin_closing()
        await self._pipeline.close()
        await self._children.stop_all()
        await self._pipeline.close()

    def _stop(self, number: int) -> None:
        """A signal to stop; a later one that ends user endpoints wins over one that keeps them."""
        if self._stopping.is_set() and number == signal.SIGUSR1:
            return
        self._keeps_children = number == signal.SIGUSR1 or self._profile.config.on_stop == "keep"
        what = "left to the next manager" if self._keeps_children else "ended"
        log.info("%s: stopping; user endpoints are %s", signal.Signals(number).name, what)
        notify(STOPPING="1", STATUS=f"stopping; user endpoints are {what}")
        self._stopping.set()

    def _reload(self) -> None:
        """Takes over an edited profile, as a whole or not at all; in-flight requests see the one or the other."""
        try:
            edited = profile.load(self._profile.directory)
            profile.check_outside(edited)
        except ConfigError as e:
            log.error("the edited profile is refused, the old one stays in force:\n%s", e)
            self._status.profile(f"edited profile refused, the old one is in force: {e}")
            return
        settings, waiting = config.reloaded(self._profile.config, edited.config)
        changed = settings.resources != self._profile.config.resources
        self._profile = replace(edited, config=settings)
        if changed:
            if self._looking is not None:
                self._looking.cancel()
            self._looking = asyncio.ensure_future(self._look_at_containment())
        self._status.mapping("")
        log.info("profile reloaded%s", f"; a restart is needed for: {', '.join(waiting)}" if waiting else "")
        self._status.profile(f"restart needed for: {', '.join(waiting)}" if waiting else "")

    async def _watch_mapping(self) -> None:
        """Takes over an edited mapping file by itself: who may become whom must not wait for somebody to remember."""
        seen = None  # the first look compares with what the profile was loaded with
        while True:
            await asyncio.sleep(MAPPING_PERIOD)
            stamp = _stamp(self._profile.config.identity_mapping_config_path)
            if stamp != seen:
                seen = stamp
                self._reload_mapping()

    def _reload_mapping(self) -> None:
        path = self._profile.config.identity_mapping_config_path
        assert path is not None, "a profile without it is not loaded"
        try:
            mapper = profile.read_mapping(path)
        except ConfigError as e:
            log.error("the edited identity mapping is refused, the old one stays in force: %s", e)
            self._status.mapping(f"edited mapping refused, the old one is in force: {e}")
            return
        self._status.mapping("")
        if mapper.digest != self._profile.mapper.digest:
            self._profile = replace(self._profile, mapper=mapper)
            log.info("identity mapping %s is in force (digest %.12s)", path, mapper.digest)

    async def _stay_connected(self, url: str, session: Callable[[Connection], Awaitable[None]], what: str) -> None:
        await stay_connected(lambda: Connection.open(url), session, self._on_trouble(what))

    async def _consume(self, connection: Connection) -> None:
        """A session on the command queue: each delivery becomes a task, acked when it has come to its end."""
        deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        queue = self._registration.commands.queue
        consumer = await connection.consume(queue, deliveries.put_nowait, prefetch=PREFETCH)
        log.info("endpoint %s consumes start commands", self._registration.endpoint_id)
        notify(READY="1")
        self._status.connection("connected")
        while True:
            self._begin(await deliveries.get(), consumer)

    def _begin(self, delivery: Delivery, consumer: Consumer) -> None:
        if self._stopping.is_set():
            return  # not acked: the broker keeps it for the next manager
        handler = asyncio.ensure_future(self._pipeline.handle(delivery))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        handler.add_done_callback(lambda done: None if done.cancelled() else consumer.ack(delivery.tag))

    async def _finish_requests(self) -> None:
        """Lets the requests under way come to their end; those that do not are the next manager's."""
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=FINISH_TIMEOUT)
            await _cancel(*self._handlers)

    async def _beat(self, connection: Connection) -> None:
        """A session of heartbeats; ends with the last one, which says that the manager is going."""
        publisher = await connection.publisher()
        while not self._stopping.is_set():
            period = self._profile.config.heartbeat_period
            await self._publish_heartbeat(publisher, period)
            waiting = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({waiting}, timeout=period)
            waiting.cancel()
        await self._publish_heartbeat(publisher, 0)

    async def _publish_heartbeat(self, publisher: Publisher, period: float) -> None:
        report = StatusReport(self._registration.endpoint_id, {"heartbeat_period": period})
        await publisher.publish(self._registration.heartbeats, pack(report))

    async def _feed_watchdog(self) -> None:
        period = watchdog_period()
        while period is not None:
            notify(WATCHDOG="1")
            await asyncio.sleep(period)

    def _on_trouble(self, what: str) -> Callable[[BrokerError, float], None]:
        def report(error: BrokerError, wait: float) -> None:
            log.warning("connection for %s: %s; next attempt in %.1f s", what, error, wait)
            self._status.connection(f"not connected ({error})")

        return report


def _stamp(path: Path | None) -> tuple[Path, int, int, int, int] | None:
    """What changes when a file does; None while it is not there."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
