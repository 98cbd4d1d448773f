"""The worker as the monitor sees it: its process, started anew when it is lost, and what it is told and says.

`manager` starts and closes it, `stages.decisions` sends notices through it, and it gives commands to `stages.pipeline`.
A worker that dies, hangs or makes no sense costs nobody a user endpoint: what the monitor works on goes on, and what it
had not acknowledged the broker gives to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from mep.monitor.endpoints.credentials import TOKEN, NotSealed
from mep.processes import helper
from mep.processes.channel import Channel, Files, Senseless
from mep.processes.helper import HelperUnavailable
from mep.processes.message import BODY, MOST_TEXT, cut
from mep.processes.printable import escaped
from mep.processes.sealed_file import SealedFile
from mep.processes.supervised import SupervisedProcess
from mep.processes.time_limit import within
from mep.processes.worker_protocol import (
    ANSWERS,
    CONSUMING,
    FILES_FROM_WORKER,
    MOST_COMMANDS,
    MOST_CREDENTIALS,
    MOST_NOTICE,
    FromWorker,
    ToWorker,
    read_command,
    read_rejection,
)
from mep.request.account import Account
from mep.request.credentials import Credentials, Unread
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
STATUS_REST = 20
"""And so many times as long as the last one took: who asks all the time has a twentieth of the manager's."""
SEAL_LIMIT = 30.0
"""Seconds in which credentials are sealed; a worker that was lost has a successor long before."""
_SEALING = frozenset({ToWorker.SEAL, ToWorker.OPEN})

NotNow = ConnectionError
"""What `Renew` raises when there are no new addresses yet."""
Renew = Callable[[], Awaitable[SealedFile]]
"""Asks the service for new addresses. Raises NotNow, or EndpointUnwanted, which ends the manager."""


class _Lost(Exception):
    """The worker was lost before it answered, or there is none. The text says why."""


class Requests(Protocol):
    """Who takes commands: `stages.pipeline`."""

    async def handle(self, command: StartEndpoint) -> None:
        """Brings one request to its end. Never raises, but when it is cancelled: then it is given back.

        The credentials of the command are closed then.
        """

    async def reject(self, refusal: Refusal, request_id: str, credentials: Credentials | None) -> None:
        """Tells about a message that is no request."""


class Status(Protocol):
    """How the manager is, and where that is asked: `status_socket`."""

    listening: socket.socket | None
    readers: int | None

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

    def shared(self, shared: bool) -> None:
        """Whether another instance of the endpoint takes commands, too."""


class WorkerProcess:
    """Keeps one worker.

    account: what it runs as. addresses: of the broker, as JSON; they hold passwords, and are passed on unread.
    """

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
        self._there = asyncio.Event()
        """There is a worker."""
        self._asked: dict[int, tuple[ToWorker, asyncio.Future[Any]]] = {}
        """What it owes an answer to, also when nobody waits for that any more."""
        self._commands: set[asyncio.Task[None]] = set()
        self._under_way: set[int] = set()
        """The numbers of its commands."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing = False
        self._renewing = False
        self._heard = 0.0
        self._born = 0.0
        self._pause = FIRST_PAUSE
        self._period = 0.0
        self._status: Status | None = None
        self._status_next = 0.0
        self._status_asked = False
        self._hears: Mapping[int, Callable[[int, Mapping[str, Any], Files], None]] = {
            FromWorker.ALIVE: lambda *_: self._tell_period(),
            FromWorker.PROBED: lambda number, body, _files: self._answered(number, _text(body["error"])),
            FromWorker.CONNECTED: lambda *_: self._is_connected(None),
            FromWorker.NOT_CONNECTED: lambda _number, body, _files: self._is_connected(_text(body["why"])),
            FromWorker.SHARED: lambda _number, body, _files: self._is_shared(body["others"]),
            FromWorker.START: self._start_command,
            FromWorker.REJECT: self._rejected,
            FromWorker.NOTICED: lambda number, body, _files: self._answered(number, body["delivered"] is True),
            FromWorker.SEALED: lambda number, _body, files: self._answered(number, _token(files[0])),
            FromWorker.OPENED: lambda number, _body, files: self._answered(number, files[0]),
            FromWorker.NOT_SEALED: lambda number, body, _files: self._answered(number, NotSealed(_text(body["why"]))),
            FromWorker.RENEW: lambda *_: self._begin_renewal(),
            FromWorker.FINISHED: lambda number, *_: self._answered(number, None),
            FromWorker.CLOSED: lambda number, *_: self._answered(number, None),
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
        try:
            error = await within(PROBE_LIMIT, self._ask(ToWorker.PROBE))
        except asyncio.TimeoutError:
            error = f"not tried within {PROBE_LIMIT:g} s"
        except _Lost as e:
            error = str(e)
        if error:
            await self._end()
            raise HelperUnavailable(f"the broker that the service names: {error}")

    def start(self, listener: Listener) -> Sequence[asyncio.Future[None]]:
        """Takes commands and sends heartbeats from now on. The future ends only when the service refuses the endpoint
        for good (EndpointUnwanted)."""
        self._listener = listener
        self._unwanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._channel is None:  # lost since it was probed, when nobody was there to be told
            self._do(self._again())
        else:
            self._consume()
        self._do(self._watch())
        return [self._unwanted]

    async def finish(self, timeout: float, *, goodbye: bool) -> None:
        """Takes no more commands; those under way have `timeout` seconds to come to their end.

        goodbye: the service is told that the manager goes for good.
        """
        self._finishing = True
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        await self._have_done(ToWorker.FINISH, timeout, goodbye=goodbye)
        if self._commands and (left := until - loop.time()) > 0:  # the worker was lost meanwhile
            await asyncio.wait(self._commands, timeout=left)
        while self._commands:  # again and again: before Python 3.12 asyncio may drop a cancellation
            for command in self._commands:
                command.cancel()
            await asyncio.wait(self._commands, timeout=1.0)

    async def close(self, timeout: float) -> None:
        """Waits until the last heartbeat has been sent, at most `timeout` seconds, and ends the worker."""
        await self._have_done(ToWorker.CLOSE, timeout)
        await self._end()

    async def _have_done(self, what: ToWorker, timeout: float, **more: bool) -> None:
        with contextlib.suppress(asyncio.TimeoutError, _Lost):
            await within(timeout + MARGIN, self._ask(what, (), timeout=timeout, **more))

    # For decisions

    async def send(self, credentials: Credentials, text: str, request_id: str) -> bool:
        """Sends a notice with the credentials of its user endpoint; whether it was delivered."""
        return await self._notice(credentials, text, request_id, again=False)

    async def send_again(self, credentials: Credentials, text: str) -> bool:
        """Tries once to send one that could not be delivered; whether it was delivered now."""
        return await self._notice(credentials, text, "", again=True)

    def decided(self, event: str, request_id: str, facts: Mapping[str, object]) -> None:
        """Tells the worker of a decision, for those who ask it."""
        body: dict[str, object] = {}
        most = _MOST_FACT
        while not body or len(json.dumps(body)) > BODY:
            body = {name: _fact(value, most) for name, value in facts.items() if value is not None}
            body |= {"event": event, "request": request_id}
            most //= 2
        self._tell(ToWorker.EVENT, **body)

    async def _notice(self, credentials: Credentials, text: str, request_id: str, *, again: bool) -> bool:
        try:
            files = [credentials.file, SealedFile.of(text[: MOST_NOTICE // 4].encode())]
            asked = self._ask(ToWorker.NOTICE, files, request_id=request_id, again=again, key=credentials.key)
            return bool(await asked)
        except OSError as e:  # no descriptor or memory to be had
            log.error("failure notice not sent: %s", e)
        except _Lost:
            pass  # it is tried again, if that is worth it
        return False

    # For the table

    async def seal(self, credentials: Credentials, key: str, ending: str = "") -> Credentials:
        """What a user endpoint reads from its credential file, sealed with its key. ending: why it is to end.

        Raises:
            NotSealed: there is no worker that does it now, or the credentials are none.
        """
        return Credentials(await self._converted(ToWorker.SEAL, credentials, to=key, ending=cut(ending)), key)

    async def open(self, credentials: Credentials) -> Credentials:
        """The same without a key, for the hand-over. Raises NotSealed."""
        return Credentials(await self._converted(ToWorker.OPEN, credentials)) if credentials.key else credentials

    async def _converted(self, kind: ToWorker, credentials: Credentials, **body: str) -> Unread:
        """The worker's answer; another worker's, when the first is lost."""

        async def answer() -> Unread:
            while True:
                await self._there.wait()
                with contextlib.suppress(_Lost):
                    file: Unread = await self._ask(kind, [credentials.file], key=credentials.key, **body)
                    return file

        if credentials.file.size > MOST_CREDENTIALS:
            raise NotSealed(f"they have {credentials.file.size} bytes; the limit is {MOST_CREDENTIALS}")
        try:
            return await within(SEAL_LIMIT, answer())
        except asyncio.TimeoutError:
            raise NotSealed(f"the worker has not done it within {SEAL_LIMIT:g} s") from None

    # Its life

    async def _begin(self) -> None:
        """Starts a worker. Raises HelperUnavailable."""
        more = [] if self._status is None or self._status.listening is None else [self._status.listening]
        self._process, ours = await helper.connected("mep.worker.program", self._account, *more)
        self._heard = self._born = asyncio.get_running_loop().time()
        self._channel = Channel(ours, FILES_FROM_WORKER, self._take, self._lost)
        self._period = 0.0
        self._under_way = set()
        self._there.set()
        self._tell(
            ToWorker.BEGIN,
            self._addresses,
            endpoint_id=self._endpoint_id,
            amqp_port=self._amqp_port,
            debug=self._debug,
            status=bool(more),
            readers=None if self._status is None else self._status.readers,
        )

    def _consume(self) -> None:
        self._tell_period()
        self._tell(ToWorker.CONSUME)

    def _lost(self, why: str) -> None:
        """It has ended, or must: nothing that it says counts any more."""
        self._drop()
        for number in list(self._asked):
            self._answered(number, _Lost(f"the worker was lost: {why}"))
        if self._listener is None or self._finishing:
            return
        log.error("the worker (pid %s) was lost: %s; another one is started", getattr(self._process, "pid", "?"), why)
        self._listener.not_connected(f"the worker was lost: {why}")
        self._listener.shared(False)  # the next one looks anew
        self._do(self._again())

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._there.clear()
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
        """Replaces a worker that says nothing any more, or does not seal, without which nothing starts."""
        loop = asyncio.get_running_loop()
        while not self._finishing:
            before, unsealed = self._heard, [number for number, (kind, _) in self._asked.items() if kind in _SEALING]
            await asyncio.sleep(SILENCE / 4)
            if self._finishing:  # a stop has time limits of its own, and the worker has last words to say
                return
            if self._channel is not None and before == self._heard and loop.time() - self._heard > SILENCE:
                self._lost(f"it said nothing for {SILENCE:g} s")
            elif any(number in self._asked for number in unsealed):
                self._lost(f"it has sealed nothing for {SILENCE / 4:g} s")

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
        said = FromWorker(kind)
        if said in CONSUMING and self._listener is None:
            raise Senseless(f"{said.name} before it was to consume commands")
        if said in ANSWERS and (number not in self._asked or self._asked[number][0] not in ANSWERS[said]):
            raise Senseless(f"{said.name} was not asked for")
        self._hears[said](number, body, files)

    def _start_command(self, number: int, _body: Mapping[str, Any], files: Files) -> None:
        command = read_command(files[0].read(), files[1])
        self._begin_command(number, files, lambda requests: requests.handle(command))

    def _rejected(self, number: int, _body: Mapping[str, Any], files: Files) -> None:
        refusal, request_id = read_rejection(files[0].read())
        credentials = Credentials(files[1]) if files[1].size else None
        self._begin_command(number, files, lambda requests: requests.reject(refusal, request_id, credentials))

    def _begin_command(
        self, number: int, files: Files, handle: Callable[[Requests], Coroutine[Any, Any, None]]
    ) -> None:
        assert self._listener is not None  # as `_take` has seen
        channel, under_way = self._channel, self._under_way
        if number in under_way or len(self._commands) >= MOST_COMMANDS:
            raise Senseless("a command twice, or more than it may hold")
        if self._finishing and channel is not None:
            channel.send(ToWorker.GIVEN_BACK, number)
            return
        task = asyncio.get_running_loop().create_task(handle(self._listener.pipeline))
        self._commands.add(task)
        under_way.add(number)

        def ended(done: asyncio.Task[None]) -> None:
            self._commands.discard(done)
            under_way.discard(number)
            for file in files:  # who goes on with the command has a copy; what has failed may be in memory for long
                file.close()
            if channel is not None:  # the one that it came through: another worker's numbers are others
                channel.send(ToWorker.GIVEN_BACK if done.cancelled() else ToWorker.DONE, number)

        task.add_done_callback(ended)

    def _is_connected(self, why: str | None) -> None:
        assert self._listener is not None  # as `_take` has seen
        if why is None:
            self._listener.connected()
        else:
            self._listener.not_connected(why)

    def _is_shared(self, others: object) -> None:
        assert self._listener is not None  # as `_take` has seen
        if type(others) is not int:
            raise ValueError("no number")
        self._listener.shared(others > 0)

    def _begin_renewal(self) -> None:
        """One at a time, however often the worker asks; a worker that came meanwhile gets the answer, too."""
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
        except Exception as e:
            log.exception("new addresses cannot be asked for")
            self._tell(ToWorker.NOT_NOW, why=f"unexpected error ({type(e).__name__}), see the log")
        else:
            self._tell(ToWorker.ADDRESSES, self._addresses)
        finally:
            self._renewing = False

    def _asked_how_it_is(self) -> None:
        """Several questions have one answer, which is not older than any of them."""
        if self._status is None:
            raise ValueError("a question how the manager is that nobody can ask it")
        if not self._status_asked:
            self._status_asked = True
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._status_next), self._tell_how_it_is, self._status)

    def _tell_how_it_is(self, status: Status) -> None:
        loop, self._status_asked = asyncio.get_running_loop(), False
        before = loop.time()
        try:
            self._tell(ToWorker.FACTS, SealedFile.of(status.answer()))
        except OSError as e:  # no descriptor or memory to be had
            log.error("nobody can be told how this manager is: %s", e)
        self._status_next = loop.time() + max(STATUS_PERIOD, STATUS_REST * (loop.time() - before))

    def _tell_period(self) -> None:
        """The profile may have been changed."""
        if self._listener is not None and self._period != (period := self._listener.heartbeat_period()):
            self._period = period
            self._tell(ToWorker.PERIOD, period=period)

    def _tell(self, kind: ToWorker, *files: SealedFile, **body: object) -> None:
        if self._channel is not None:
            self._channel.send(kind, 0, files=files, **body)

    async def _ask(self, kind: ToWorker, files: Sequence[Unread] = (), **body: object) -> Any:
        """Its answer. Raises _Lost; or NotSealed, when that is the answer."""
        if self._channel is None:
            raise _Lost("there is no worker")
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = kind, answer
        self._channel.send(kind, number, files=files, **body)
        return await answer

    def _answered(self, number: int, said: object) -> None:
        _, answer = self._asked.pop(number)
        if answer.done():
            return  # whoever asked does not wait any more
        if isinstance(said, Exception):
            answer.set_exception(said)
        else:
            answer.set_result(said)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise ValueError("no text")  # noqa: TRY004 - a type is a value here
    return escaped(said)


def _token(file: Unread) -> Unread:
    """The file, if that is what goes into a credential file, and on record."""
    if not TOKEN.fullmatch(file.read()):
        raise Senseless("what it has sealed is no token")
    return file


def _log(_number: int, body: Mapping[str, Any], _files: Files) -> None:
    level, name, text = body["level"], str(body["name"]), str(body["text"])[:MOST_TEXT]
    if type(level) is not int:
        raise ValueError("no level of a log")
    known = name if _LOGGERS.fullmatch(name) and (name in _seen or len(_seen) < _MOST_LOGGERS) else "mep.worker"
    _seen.add(known)
    lines = "\n".join(escaped(line) for line in text.split("\n"))
    logging.getLogger(known).log(min(max(level, logging.DEBUG), logging.CRITICAL), "%s", lines)


def _fact(value: object, most: int) -> object:
    """A fact of a decision, bounded."""
    return value if isinstance(value, (bool, int, float)) else str(value)[:most]


_MOST_FACT = 1000
"""Letters of a text in EVENT; fewer when there are many."""
_LOGGERS = re.compile(r"[A-Za-z0-9_.]{1,100}")
_MOST_LOGGERS = 100
_seen: set[str] = set()
"""The loggers that the worker has named: each stays in memory."""
