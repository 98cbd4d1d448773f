"""The worker as the monitor sees it: its process, started anew when it is lost, and what it is told and says.

`manager` starts and closes it, `stages.decisions` sends notices through it, and it gives commands to `stages.pipeline`.
A worker that dies, hangs or makes no sense costs nobody a user endpoint: what the monitor works on goes on, and what it
had not acknowledged the broker gives to the next one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from mep.processes import helper
from mep.processes.channel import Channel, Files
from mep.processes.helper import HelperUnavailable
from mep.processes.printable import escaped
from mep.processes.sealed_file import SealedFile
from mep.processes.supervised import SupervisedProcess
from mep.processes.time_limit import within
from mep.processes.worker_protocol import (
    FILES_FROM_WORKER,
    MOST_COMMANDS,
    MOST_TEXT,
    FromWorker,
    ToWorker,
    cut,
    read_command,
    read_rejection,
)
from mep.request.account import Account
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint
from mep.request.unwanted import EndpointUnwanted

log = logging.getLogger(__name__)

PROBE_LIMIT = 90.0
"""Seconds until the broker has been tried at the start; it waits less long for each of its steps."""
SILENCE = 60.0
"""Seconds without a sign of life after which it is replaced."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another one is started; each pause is twice the one before, until one has lived for SILENCE."""
MARGIN = 5.0
"""Seconds more than a worker is given to finish or close: then it hangs."""
STATUS_PERIOD = 0.1
"""Seconds between two answers to how the manager is, however often a worker asks."""

NotNow = ConnectionError
"""What `Renew` raises when there are no new addresses yet."""
Renew = Callable[[], Awaitable[SealedFile]]
"""Asks the service for new addresses. Raises NotNow, or EndpointUnwanted, which ends the manager."""


class Requests(Protocol):
    """Who takes commands: `stages.pipeline`."""

    async def handle(self, command: StartEndpoint) -> None:
        """Brings one request to its end. Never raises, but when it is cancelled: then it is given back."""

    async def reject(self, refusal: Refusal, request_id: str, credentials: Mapping[str, Any] | None) -> None:
        """Tells about a message that is no request."""


class Status(Protocol):
    """How the manager is, and where that is asked: `status_socket`."""

    listening: socket.socket | None

    def answer(self) -> bytes:
        """The answer as it is now."""


class Listener(Protocol):
    """Who is told: `manager`."""

    @property
    def pipeline(self) -> Requests:
        """Who takes the commands."""

    def heartbeat_period(self) -> float:
        """Seconds between two heartbeats of the manager, as they are in force."""

    def connected(self) -> None:
        """Commands are being consumed."""

    def not_connected(self, reason: str) -> None:
        """Commands cannot come, and why."""


class WorkerProcess:
    """Keeps one worker. account: what it runs as. addresses: of the broker, which only the worker reads."""

    def __init__(
        self,
        account: Account,
        endpoint_id: str,
        amqp_port: int | None,
        addresses: SealedFile,
        renew: Renew,
        *,
        debug: bool,
    ) -> None:
        self._account = account
        self._endpoint_id = endpoint_id
        self._amqp_port = amqp_port
        self._addresses = addresses
        self._renew = renew
        self._debug = debug
        self._listener: Listener | None = None
        self._process: SupervisedProcess | None = None
        self._channel: Channel | None = None
        self._numbers = itertools.count(1)
        self._notices: dict[int, asyncio.Future[bool]] = {}
        self._answers: dict[FromWorker, asyncio.Future[str]] = {}
        self._commands: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing = False
        self._renewing = False
        self._heard = 0.0
        self._born = 0.0
        self._pause = FIRST_PAUSE
        self._period = 0.0
        self._status: Status | None = None
        self._status_told = 0.0
        self._status_asked = False
        self._hears: Mapping[int, Callable[[int, Mapping[str, Any], Files], None]] = {
            FromWorker.ALIVE: lambda *_: self._tell_period(),
            FromWorker.PROBED: lambda _number, body, _files: self._answer(FromWorker.PROBED, _text(body["error"])),
            FromWorker.CONNECTED: lambda *_: self._is_connected(None),
            FromWorker.NOT_CONNECTED: lambda _number, body, _files: self._is_connected(_text(body["why"])),
            FromWorker.START: self._start_command,
            FromWorker.REJECT: self._rejected,
            FromWorker.NOTICED: self._noticed,
            FromWorker.RENEW: lambda *_: self._begin_renewal(),
            FromWorker.FINISHED: lambda *_: self._answer(FromWorker.FINISHED),
            FromWorker.CLOSED: lambda *_: self._answer(FromWorker.CLOSED),
            FromWorker.LOG: _log,
            FromWorker.STATUS: lambda *_: self._asked_how_it_is(),
        }

    # For the manager

    async def probe(self, status: Status) -> None:
        """Starts the worker, which answers how the manager is from now on, and tries the broker.

        Raises HelperUnavailable.
        """
        self._status = status
        await self._begin()
        answer = self._expect(FromWorker.PROBED)
        self._tell(ToWorker.PROBE)
        try:
            error = await within(PROBE_LIMIT, answer)
        except asyncio.TimeoutError:
            error = f"not tried within {PROBE_LIMIT:g} s"
        if error:
            await self._end()
            raise HelperUnavailable(f"the broker that the service names: {error}")

    def start(self, listener: Listener) -> Sequence[asyncio.Future[None]]:
        """Takes commands and sends heartbeats from now on. The future ends only when the service refuses the endpoint
        for good (EndpointUnwanted)."""
        self._listener = listener
        self._unwanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consume()
        self._do(self._watch())
        return [self._unwanted]

    async def finish(self, timeout: float) -> None:
        """Takes no more commands; those under way have `timeout` seconds to come to their end."""
        self._finishing = True
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        await self._have_done(ToWorker.FINISH, FromWorker.FINISHED, timeout)
        if self._commands and (left := until - loop.time()) > 0:  # the worker was lost meanwhile
            await asyncio.wait(self._commands, timeout=left)
        while self._commands:  # again and again: before Python 3.12 asyncio may drop a cancellation
            for command in self._commands:
                command.cancel()
            await asyncio.wait(self._commands, timeout=1.0)

    async def close(self, timeout: float) -> None:
        """Waits until the last heartbeat has been sent, at most `timeout` seconds, and ends the worker."""
        await self._have_done(ToWorker.CLOSE, FromWorker.CLOSED, timeout)
        await self._end()

    async def _have_done(self, what: ToWorker, answer: FromWorker, timeout: float) -> None:
        if self._channel is None:
            return
        expected = self._expect(answer)
        self._tell(what, timeout=timeout)
        await asyncio.wait({expected}, timeout=timeout + MARGIN)

    # For decisions

    async def send(self, credentials: Mapping[str, Any], text: str, request_id: str) -> bool:
        """Sends a notice with the credentials of its user endpoint; whether it was delivered."""
        return await self._notice(credentials, text, request_id, again=False)

    async def send_again(self, credentials: Mapping[str, Any], text: str) -> bool:
        """Tries once to send one that could not be delivered; whether it was delivered now."""
        return await self._notice(credentials, text, "", again=True)

    async def _notice(self, credentials: Mapping[str, Any], text: str, request_id: str, *, again: bool) -> bool:
        if self._channel is None:
            return False
        number, delivered = next(self._numbers), asyncio.get_running_loop().create_future()
        self._notices[number] = delivered
        try:
            file = json.dumps({"credentials": credentials, "text": text}).encode()
            self._tell(ToWorker.NOTICE, number, files=[SealedFile.of(file)], request_id=request_id, again=again)
            return bool(await delivered)
        except OSError as e:  # no descriptor or memory to be had
            log.error("failure notice not sent: %s", e)
            return False
        finally:
            self._notices.pop(number, None)

    # Its life

    async def _begin(self) -> None:
        """Starts a worker. Raises HelperUnavailable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                more = [] if self._status is None or self._status.listening is None else [self._status.listening]
                process = await helper.start("mep.worker.program", self._account, theirs, *more)
        except BaseException:
            ours.close()
            raise
        self._process = process
        self._heard = self._born = asyncio.get_running_loop().time()
        self._channel = Channel(ours, FILES_FROM_WORKER, self._take, self._lost)
        self._period = 0.0
        self._tell(
            ToWorker.BEGIN,
            files=[self._addresses],
            endpoint_id=self._endpoint_id,
            amqp_port=self._amqp_port,
            debug=self._debug,
            status=bool(more),
        )

    def _consume(self) -> None:
        self._tell_period()
        self._tell(ToWorker.CONSUME)

    def _lost(self, why: str) -> None:
        """It has ended, or must: nothing that it says counts any more."""
        self._drop()
        for notice in self._notices.values():
            if not notice.done():
                notice.set_result(False)
        for answer in list(self._answers):
            self._answer(answer, f"the worker was lost: {why}")
        if self._listener is None or self._finishing:
            return
        log.error("the worker (pid %s) was lost: %s; another one is started", getattr(self._process, "pid", "?"), why)
        self._listener.not_connected(f"the worker was lost: {why}")
        self._do(self._again())

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()

    async def _again(self) -> None:
        loop = asyncio.get_running_loop()
        self._pause = FIRST_PAUSE if loop.time() - self._born > SILENCE else self._pause
        while not self._finishing:
            await asyncio.sleep(self._pause)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            try:
                await self._begin()
            except (HelperUnavailable, OSError) as e:
                log.error("the worker cannot be started: %s", e)
                self._drop()
                continue
            self._consume()
            return

    async def _watch(self) -> None:
        """Replaces a worker that says nothing any more."""
        loop = asyncio.get_running_loop()
        while not self._finishing:
            before = self._heard
            await asyncio.sleep(SILENCE / 4)
            if self._channel is not None and before == self._heard and loop.time() - self._heard > SILENCE:
                self._lost(f"it said nothing for {SILENCE:g} s")

    async def _end(self) -> None:
        self._finishing = True
        for task in self._tasks:
            task.cancel()
        self._drop()
        if self._process is not None:
            await self._process.end()

    # What it says

    def _take(self, kind: int, number: int, body: Mapping[str, Any], files: Files) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._hears[kind](number, body, files)

    def _start_command(self, number: int, _body: Mapping[str, Any], files: Files) -> None:
        command = read_command(files[0].read())
        self._begin_command(number, lambda requests: requests.handle(command))

    def _rejected(self, number: int, _body: Mapping[str, Any], files: Files) -> None:
        refusal, request_id, credentials = read_rejection(files[0].read())
        self._begin_command(number, lambda requests: requests.reject(refusal, request_id, credentials))

    def _begin_command(self, number: int, handle: Callable[[Requests], Coroutine[Any, Any, None]]) -> None:
        if self._listener is None or len(self._commands) >= MOST_COMMANDS:
            raise ValueError("a command before it was to consume any, or more than it may hold")
        channel = self._channel
        if self._finishing and channel is not None:
            channel.send(ToWorker.GIVEN_BACK, number)
            return
        task = asyncio.get_running_loop().create_task(handle(self._listener.pipeline))
        self._commands.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._commands.discard(done)
            if channel is not None:  # the one that it came through: another worker's numbers are others
                channel.send(ToWorker.GIVEN_BACK if done.cancelled() else ToWorker.DONE, number)

        task.add_done_callback(ended)

    def _noticed(self, number: int, body: Mapping[str, Any], _files: Files) -> None:
        notice = self._notices.get(number)
        if notice is not None and not notice.done():
            notice.set_result(body["delivered"] is True)

    def _is_connected(self, why: str | None) -> None:
        if self._listener is None:
            raise ValueError("a connection before it was to have one")
        if why is None:
            self._listener.connected()
        else:
            self._listener.not_connected(why)

    def _begin_renewal(self) -> None:
        """One at a time, however often the worker asks; a worker that came meanwhile gets the answer, too."""
        if self._listener is None:
            raise ValueError("new addresses before it was to use any")
        if not self._renewing:
            self._renewing = True
            self._do(self._renew_addresses())

    async def _renew_addresses(self) -> None:
        try:
            self._addresses = await self._renew()
        except NotNow as e:
            self._tell(ToWorker.NOT_NOW, why=cut(str(e)))
        except EndpointUnwanted as e:
            if not self._unwanted.done():
                self._unwanted.set_exception(e)
        else:
            self._tell(ToWorker.ADDRESSES, files=[self._addresses])
        finally:
            self._renewing = False

    def _asked_how_it_is(self) -> None:
        """Several questions have one answer, which is not older than any of them."""
        if self._status is None:
            raise ValueError("a question how the manager is that nobody can ask it")
        if not self._status_asked:
            self._status_asked = True
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._status_told + STATUS_PERIOD), self._tell_how_it_is, self._status)

    def _tell_how_it_is(self, status: Status) -> None:
        self._status_asked, self._status_told = False, asyncio.get_running_loop().time()
        try:
            self._tell(ToWorker.STATUS_IS, files=[SealedFile.of(status.answer())])
        except OSError as e:  # no descriptor or memory to be had
            log.error("nobody can be told how this manager is: %s", e)

    def _tell_period(self) -> None:
        """The profile may have been changed."""
        if self._listener is not None and self._period != (period := self._listener.heartbeat_period()):
            self._period = period
            self._tell(ToWorker.PERIOD, period=period)

    def _tell(self, kind: ToWorker, number: int = 0, *, files: Files = (), **body: object) -> None:
        if self._channel is not None:
            self._channel.send(kind, number, files=files, **body)

    def _expect(self, kind: FromWorker) -> asyncio.Future[str]:
        expected: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[kind] = expected
        return expected

    def _answer(self, kind: FromWorker, text: str = "") -> None:
        expected = self._answers.pop(kind, None)
        if expected is not None and not expected.done():
            expected.set_result(text)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise ValueError("no text")  # noqa: TRY004 - a type is a value here
    return escaped(said)


def _log(_number: int, body: Mapping[str, Any], _files: Files) -> None:
    level, name, text = body["level"], str(body["name"]), str(body["text"])[:MOST_TEXT]
    if type(level) is not int:
        raise ValueError("no level of a log")
    known = name if _LOGGERS.fullmatch(name) and (name in _seen or len(_seen) < _MOST_LOGGERS) else "mep.worker"
    _seen.add(known)
    lines = "\n".join(escaped(line) for line in text.split("\n"))
    logging.getLogger(known).log(min(max(level, logging.DEBUG), logging.CRITICAL), "%s", lines)


_LOGGERS = re.compile(r"[A-Za-z0-9_.]{1,100}")
_MOST_LOGGERS = 100
_seen: set[str] = set()
"""The loggers that the worker has named: each stays in memory."""
