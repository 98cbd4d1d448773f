"""The worker as a program: `python -m mep.worker.program`. Talks to the broker for the monitor, and has no rights.

The monitor (`monitor.worker_process`) has it started, and started anew when it dies or hangs. They talk over descriptor
0 (`processes.worker_protocol`). All that the worker reads, it was told by the service; what it makes of that is read
once more by the monitor.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import resource
import socket
from collections.abc import Callable, Mapping
from typing import Any

from mep.privileged import kernel
from mep.processes import named_sockets
from mep.processes.channel import Channel, Files
from mep.processes.message import FIRST_MORE, cut
from mep.processes.sealed_file import SealedFile
from mep.processes.worker_protocol import (
    FILES_TO_WORKER,
    MOST_COMMAND,
    MOST_CREDENTIALS,
    PULSE,
    FromWorker,
    ToWorker,
    write_command,
    write_rejection,
)
from mep.request.credentials import Unread
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint
from mep.worker import sealing
from mep.worker.api import Api
from mep.worker.api_server import ApiServer
from mep.worker.consumer import CommandConsumer
from mep.worker.durations import Durations
from mep.worker.event_loop import EventLoop
from mep.worker.events import Events
from mep.worker.heartbeats import Heartbeats
from mep.worker.notices import Notices
from mep.worker.worker import Addresses, Worker
from wire.errors import BrokerError, Unreachable
from wire.queues import Source, Target
from wire.redaction import Redactor

log = logging.getLogger(__name__)


def main() -> None:
    """Serves the monitor until it closes the socket."""
    kernel.set_dumpable(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_COMMAND, MOST_COMMAND))  # files in memory count, too
    loop = EventLoop()
    with socket.socket(fileno=0) as connection:
        loop.run_until_complete(Program().run(connection))
    os._exit(0)  # the monitor has gone, or has all that it wanted: nothing is waited for


class Program:
    """The parts of the worker, and what connects them with the monitor. `CommandConsumer` gives it the commands."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._commands: dict[int, asyncio.Future[None]] = {}
        self._addresses: asyncio.Future[Addresses] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._period = 1.0
        self._facts: asyncio.Future[bytes] | None = None
        self._events, self._durations = Events(), Durations()
        self._does: Mapping[int, Callable[[int, Mapping[str, Any], Files], None]] = {
            ToWorker.BEGIN: self._begin,
            ToWorker.PROBE: lambda number, _body, _files: self._do(self._probe(number)),
            ToWorker.CONSUME: lambda *_: self._consume(),
            ToWorker.PERIOD: self._set_period,
            ToWorker.DONE: self._done,
            ToWorker.GIVEN_BACK: self._given_back,
            ToWorker.NOTICE: self._notice,
            ToWorker.SEAL: self._seal,
            ToWorker.OPEN: self._open,
            ToWorker.ADDRESSES: self._renewed,
            ToWorker.NOT_NOW: self._not_renewed,
            ToWorker.FINISH: lambda number, body, _files: self._do(self._finish(number, **body)),
            ToWorker.CLOSE: lambda number, body, _files: self._do(self._close(number, body["timeout"])),
            ToWorker.FACTS: self._facts_came,
            ToWorker.EVENT: self._decided,
        }

    async def run(self, connection: socket.socket) -> None:
        """Returns when the monitor has gone."""
        gone = asyncio.Event()
        self._manager = named_sockets.peer(connection).uid
        self._channel = Channel(connection, FILES_TO_WORKER, self._take, lambda _: gone.set())
        self._do(self._pulse())
        await gone.wait()

    # What the consumer gives

    async def handle(self, command: StartEndpoint) -> None:
        """Returns when the monitor has finished the command; cancelled, when it has given it back."""
        await self._handed_over(FromWorker.START, write_command(command), command.credentials.file)

    async def reject(self, refusal: Refusal, request_id: str, credentials: bytes) -> None:
        """Returns when the monitor has told whom it concerns."""
        await self._handed_over(FromWorker.REJECT, write_rejection(refusal, request_id), credentials)

    def connected(self) -> None:
        """Commands are being consumed."""
        self._channel.send(FromWorker.CONNECTED)

    def not_connected(self, reason: str) -> None:
        """Commands cannot come."""
        self._channel.send(FromWorker.NOT_CONNECTED, why=cut(reason))

    def shared(self, others: int) -> None:
        """Other instances of the endpoint take commands, too."""
        self._channel.send(FromWorker.SHARED, others=others)

    async def _handed_over(self, kind: FromWorker, *parts: bytes | Unread) -> None:
        number, finished = next(self._numbers), asyncio.get_running_loop().create_future()
        self._commands[number] = finished
        try:
            files = [SealedFile.of(part) if isinstance(part, bytes) else part for part in parts]
            self._channel.send(kind, number, files=files)
            del files
            await finished
        except OSError:  # no descriptor or memory to be had: the command comes again to another worker
            log.exception("a command cannot be passed on")
            os._exit(os.EX_OSERR)
        finally:
            del self._commands[number]

    # What the monitor says

    def _take(self, kind: int, number: int, body: Mapping[str, Any], files: Files) -> None:
        self._does[kind](number, body, files)

    def _begin(self, _number: int, body: Mapping[str, Any], files: Files) -> None:
        self._log_to_monitor(logging.DEBUG if body["debug"] else logging.INFO)
        amqp_port = body["amqp_port"]
        consumer, heartbeats = CommandConsumer(amqp_port, self), Heartbeats(body["endpoint_id"], lambda: self._period)
        self._notices = Notices(amqp_port)
        self._worker = Worker(_read(files[0].read()), self._renew, consumer, heartbeats)
        if body["status"]:
            listening = socket.socket(fileno=FIRST_MORE)
            api = Api(self._ask_for_facts, self._events, self._durations)
            self._do(ApiServer(listening, self._manager, body["readers"], api.answer).serve())

    async def _probe(self, number: int) -> None:
        try:
            await self._worker.probe()
        except BrokerError as e:
            self._channel.send(FromWorker.PROBED, number, error=cut(str(e)))
        else:
            self._channel.send(FromWorker.PROBED, number, error="")

    def _consume(self) -> None:
        for session in self._worker.start(self):
            session.add_done_callback(_ended)

    def _set_period(self, _number: int, body: Mapping[str, Any], _files: Files) -> None:
        self._period = body["period"]

    def _done(self, number: int, _body: Mapping[str, Any], _files: Files) -> None:
        finished = self._commands.get(number)
        if finished is not None and not finished.done():
            finished.set_result(None)

    def _given_back(self, number: int, _body: Mapping[str, Any], _files: Files) -> None:
        finished = self._commands.get(number)
        if finished is not None:
            finished.cancel()

    def _notice(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        credentials, text = (file.read() for file in files)
        self._do(self._send_notice(number, body, credentials, text.decode()))

    async def _send_notice(self, number: int, body: Mapping[str, Any], credentials: bytes, text: str) -> None:
        request_id = body["request_id"]
        try:
            whom = sealing.read(credentials, body["key"])
        except ValueError as e:
            log.error("[%s] failure notice not sent: its credentials cannot be read: %s", request_id, e)
            delivered = False
        else:
            send, again = self._notices.send, self._notices.send_again
            delivered = await (again(whom, text) if body["again"] else send(whom, text, request_id))
        self._channel.send(FromWorker.NOTICED, number, delivered=delivered)

    def _seal(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        try:
            made = sealing.seal(sealing.read(files[0].read(), body["key"]), body["to"], body["ending"])
            self._channel.send(FromWorker.SEALED, number, files=[_within_limit(made)])
        except ValueError as e:
            self._channel.send(FromWorker.NOT_SEALED, number, why=cut(str(e)))

    def _open(self, number: int, body: Mapping[str, Any], files: Files) -> None:
        try:
            made = json.dumps(sealing.read(files[0].read(), body["key"])).encode()
            self._channel.send(FromWorker.OPENED, number, files=[_within_limit(made)])
        except ValueError as e:
            self._channel.send(FromWorker.NOT_SEALED, number, why=cut(str(e)))

    async def _renew(self) -> Addresses:
        """Raises Unreachable: there are no new addresses yet."""
        self._addresses = asyncio.get_running_loop().create_future()
        self._channel.send(FromWorker.RENEW)
        return await self._addresses

    def _renewed(self, _number: int, _body: Mapping[str, Any], files: Files) -> None:
        if self._addresses is not None and not self._addresses.done():
            self._addresses.set_result(_read(files[0].read()))

    def _not_renewed(self, _number: int, body: Mapping[str, Any], _files: Files) -> None:
        if self._addresses is not None and not self._addresses.done():
            self._addresses.set_exception(Unreachable(body["why"]))

    async def _ask_for_facts(self) -> bytes:
        """How the manager is, in the monitor's words; several may wait for it."""
        if self._facts is None or self._facts.done():
            self._facts = asyncio.get_running_loop().create_future()
        self._channel.send(FromWorker.STATUS)
        return await asyncio.shield(self._facts)

    def _facts_came(self, _number: int, _body: Mapping[str, Any], files: Files) -> None:
        if self._facts is not None and not self._facts.done():
            self._facts.set_result(files[0].read())

    def _decided(self, _number: int, body: Mapping[str, Any], _files: Files) -> None:
        self._events.add(body)
        self._durations.add(body)

    async def _finish(self, number: int, timeout: float, goodbye: bool) -> None:
        await self._worker.finish(timeout, goodbye=goodbye)
        self._channel.send(FromWorker.FINISHED, number)

    async def _close(self, number: int, timeout: float) -> None:
        await self._worker.close(timeout)
        self._channel.send(FromWorker.CLOSED, number)

    async def _pulse(self) -> None:
        while True:
            self._channel.send(FromWorker.ALIVE)
            await asyncio.sleep(PULSE)

    def _do(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _log_to_monitor(self, level: int) -> None:
        handler = _LogToMonitor(self._channel)
        handler.addFilter(Redactor())
        logging.basicConfig(level=level, handlers=[handler], force=True)
        logging.getLogger("asyncio").setLevel(logging.INFO)


class _LogToMonitor(logging.Handler):
    """The manager's log is the monitor's to write."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(FromWorker.LOG, level=record.levelno, name=record.name[:100], text=cut(self.format(record)))


def _read(addresses: bytes) -> Addresses:
    said = json.loads(addresses)
    return Addresses(Source(**said["commands"]), Target(**said["heartbeats"]))


def _within_limit(credentials: bytes) -> SealedFile:
    """Raises ValueError: they are longer than the monitor takes them, which would end us."""
    if len(credentials) > MOST_CREDENTIALS:
        raise ValueError(f"the result has {len(credentials)} bytes; the limit is {MOST_CREDENTIALS}")
    return SealedFile.of(credentials)


def _ended(session: asyncio.Future[None]) -> None:
    """A session ends only when it is stopped, or when something is broken: then a new process is better."""
    if not session.cancelled() and (error := session.exception()) is not None:
        log.critical("internal error", exc_info=error)
        os._exit(os.EX_SOFTWARE)


if __name__ == "__main__":
    kernel.end_if_dumpable()
    main()
