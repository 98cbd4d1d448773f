"""The manager's event loop: one thread, woken by AMQP, child exits, timers and signals. Nothing is polled.

`run` is called by `cli` once the endpoint is registered, and returns when the manager has been stopped.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import setproctitle

from mep.audit import AuditTrail
from mep.children import Children
from mep.config import ManagerConfig
from mep.notify import notify, watchdog_period
from mep.pipeline import Pipeline
from mep.profile import Profile
from mep.registration import Registration
from mep.renderer import Renderer
from wire.amqp import BrokerError, Connection, Consumer, Delivery, Publisher, stay_connected
from wire.messages import StatusReport, pack

log = logging.getLogger(__name__)

PREFETCH = 64
"""Requests under way at once; the broker holds back the rest."""
FINISH_TIMEOUT = 20.0
"""Seconds that requests under way have to come to their end when the manager stops."""
LAST_WORDS_TIMEOUT = 5.0
"""Seconds for the heartbeat that says good-bye, when there is a connection to be had."""


def run(profile: Profile, registration: Registration, run_directory: Path) -> None:
    """Serves requests until SIGTERM, SIGINT or SIGHUP. `run_directory` is this endpoint's folder below /run.

    Raises:
        BrokerError: the broker could not be reached at the start; nothing was consumed. Later losses are mended.
        RendererUnavailable: user endpoints could not be configured; nothing was consumed.
        OSError: the audit trail cannot be opened.
    """
    setproctitle.setproctitle(f"mep: manager of {profile.name} ({registration.endpoint_id})")
    loop = _Loop()
    try:
        loop.run_until_complete(_Manager(profile, registration, run_directory).serve())
    finally:
        loop.close()


class _Loop(asyncio.SelectorEventLoop):
    """Looks host names up without a lasting thread.

    asyncio would keep a pool of threads for it, and a process that forks must have none. Addresses need no look-up;
    for names a thread lives as long as the look-up, which happens only while there is no connection.
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

    def __init__(self, profile: Profile, registration: Registration, run_directory: Path) -> None:
        self._profile = profile
        self._registration = registration
        self._stopping = asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        self._audit = AuditTrail(profile.config.audit_log_path)
        self._renderer = Renderer(profile.config.render_account)
        self._pipeline = Pipeline(
            lambda: self._profile, registration.endpoint_id, self._renderer, self._audit, lambda: self._children
        )
        self._children = Children(
            run_directory,
            profile.config.mu_child_ep_grace_period_s,
            _start_timeout(profile.config),
            self._pipeline.checked_in,
            self._pipeline.exited,
        )

    async def serve(self) -> None:
        """Runs until a signal stops it; then stops the user endpoints and says good-bye to the service."""
        loop = asyncio.get_running_loop()
        command_url = self._registration.commands.connection_url
        heartbeat_url = self._registration.heartbeats.connection_url
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever started us may have blocked what stops us
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop, number)
        try:
            await self._renderer.start()
            await (await Connection.open(command_url)).close()  # one that is not there is told at the start
            heartbeats = asyncio.ensure_future(self._stay_connected(heartbeat_url, self._beat, "heartbeats"))
            commands = asyncio.ensure_future(self._stay_connected(command_url, self._consume, "commands"))
            watchdog = asyncio.ensure_future(self._feed_watchdog())
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({stopping, heartbeats, commands}, return_when=asyncio.FIRST_COMPLETED)
            broken = [task for task in (heartbeats, commands) if task.done() and not self._stopping.is_set()]
            for task in broken:
                log.critical("internal error", exc_info=task.exception())
            self._stopping.set()
            self._pipeline.begin_closing()
            await self._finish_requests()
            await _cancel(commands)
            await self._pipeline.close()
            await self._children.stop_all()
            await asyncio.wait({heartbeats}, timeout=LAST_WORDS_TIMEOUT)
            await _cancel(heartbeats, watchdog, stopping)
            if broken:  # a bug; a new process is better than one that only seems to work
                raise RuntimeError("the manager lost its commands or heartbeats unexpectedly")
        finally:
            await self._renderer.stop()
            self._audit.close()
        log.info("manager of %s stopped", self._registration.endpoint_id)

    def _stop(self, number: int) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        notify(STOPPING="1", STATUS="stopping user endpoints")
        self._stopping.set()

    async def _stay_connected(self, url: str, session: Callable[[Connection], Awaitable[None]], what: str) -> None:
        await stay_connected(lambda: Connection.open(url), session, self._on_trouble(what))

    async def _consume(self, connection: Connection) -> None:
        """A session on the command queue: each delivery becomes a task, acked when it has come to its end."""
        deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        queue = self._registration.commands.queue
        consumer = await connection.consume(queue, deliveries.put_nowait, prefetch=PREFETCH)
        log.info("endpoint %s consumes start commands", self._registration.endpoint_id)
        notify(READY="1", STATUS=f"endpoint {self._registration.endpoint_id}: consuming start commands")
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
        period = self._profile.config.heartbeat_period
        while not self._stopping.is_set():
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
            notify(STATUS=f"not connected: {error}")

        return report


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _start_timeout(config: ManagerConfig) -> float | None:
    """Only our own user endpoint tells of its first heartbeat; of another program it is not expected."""
    return config.start_timeout if config.uep_command == ManagerConfig().uep_command else None
