"""The worker, its process and a real broker: what passes, and what becomes of one that dies, hangs or turns hostile."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import gc
import json
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pika
import pytest
from cryptography.fernet import Fernet

from lab.broker import PrivateBroker
from lab.waiting import aiountil
from mep.daemon import helper_account
from mep.monitor import worker_process
from mep.monitor.endpoints.credentials import NotSealed, new_key
from mep.monitor.worker_process import NotNow, WorkerProcess
from mep.processes.channel import BODY, HEADER
from mep.processes.helper import HelperUnavailable
from mep.processes.message import cut
from mep.processes.sealed_file import SealedFile
from mep.processes.worker_protocol import (
    FromWorker,
    ToWorker,
    read_command,
    read_rejection,
    write_command,
    write_rejection,
)
from mep.profile.config import ManagerConfig
from mep.request.credentials import Credentials
from mep.request.refusal import Refusal
from mep.request.start_endpoint import StartEndpoint
from mep.request.unwanted import EndpointUnwanted
from tests.mep.commands import COMMAND, MANAGER, UEP
from tests.mep.credentials import inside, plain, seal

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("root")]


def file(value: object) -> SealedFile:
    """That, as JSON."""
    return SealedFile.of(json.dumps(value).encode())


class Service:
    """What the service keeps at the broker for one manager."""

    def __init__(self, broker: PrivateBroker) -> None:
        self.name = f"w{uuid.uuid4().hex[:8]}"
        self.url = broker.url
        self._connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.channel = self._connection.channel()
        self.channel.queue_declare(f"{self.name}.commands")
        self.channel.exchange_declare(f"{self.name}.x", "topic")
        self.channel.queue_declare(f"{self.name}.beats")
        self.channel.queue_bind(f"{self.name}.beats", f"{self.name}.x", "#")

    @property
    def addresses(self) -> dict[str, Any]:
        beats = {"exchange": f"{self.name}.x", "routing_key": "beats", "mandatory": False, "properties": {}}
        return {
            "commands": {"connection_url": self.url, "queue": f"{self.name}.commands"},
            "heartbeats": {"connection_url": self.url, **beats},
        }

    def send(self, body: object) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties = pika.BasicProperties(content_type="application/json", timestamp=round(time.time()))
        self.channel.basic_publish("", f"{self.name}.commands", data, properties)

    def command(self, n: int) -> dict[str, Any]:
        """A start command of this service's, whose notices come back to `beats`."""
        made = copy.deepcopy(COMMAND)
        made["kwargs"]["name"] = f"uep.{n}"
        for info in made["kwargs"]["amqp_creds"].values():
            if isinstance(info, dict):
                info["connection_url"] = self.url
                info.get("queue_publish_kwargs", {}).update(exchange=f"{self.name}.x", routing_key=f"notice.{n}")
        return made

    def beats(self) -> int:
        self._connection.process_data_events(0)
        return int(self.channel.queue_declare(f"{self.name}.beats", passive=True).method.message_count)

    def waiting(self) -> int:
        """Commands that nobody has taken."""
        self._connection.process_data_events(0)
        return int(self.channel.queue_declare(f"{self.name}.commands", passive=True).method.message_count)

    def close(self) -> None:
        self._connection.close()


def in_a_file(addresses: Mapping[str, Any]) -> SealedFile:
    return SealedFile.of(json.dumps(addresses).encode())


class NoStatus:
    """Nobody can ask how the manager is."""

    listening = None
    readers = None

    def __init__(self) -> None:
        self.answers = 0

    def answer(self) -> bytes:
        self.answers += 1
        return b"{}\n"


class Site:
    """Who listens, and takes the commands."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pipeline = self
        self.told: list[str] = []
        self.names: list[str] = []
        self.rejected: list[str] = []
        self.instances: list[bool] = []
        self.renewals: list[Any] = []
        self.hold: asyncio.Event | None = None
        self.worker = WorkerProcess(
            helper_account.find(ManagerConfig()).worker, MANAGER, None, file(service.addresses), self.renew, debug=False
        )

    async def renew(self) -> SealedFile:
        answer = self.renewals.pop(0) if self.renewals else NotNow("nobody knows")
        if isinstance(answer, Exception):
            raise answer
        return file(answer)

    async def handle(self, command: StartEndpoint) -> None:
        self.names.append(command.name)
        if self.hold is not None:
            await self.hold.wait()

    async def reject(self, refusal: Refusal, request_id: str, credentials: Credentials | None) -> None:
        self.rejected.append(refusal.reason_for_admin)

    def heartbeat_period(self) -> float:
        return 0.2

    def connected(self) -> None:
        self.told.append("connected")

    def not_connected(self, reason: str) -> None:
        self.told.append(reason)

    def shared(self, shared: bool) -> None:
        self.instances.append(shared)

    @property
    def pid(self) -> int:
        assert self.worker._process is not None
        return self.worker._process.pid

    async def connect(self) -> asyncio.Future[None]:
        await self.worker.probe(NoStatus())
        (unwanted,) = self.worker.start(self)
        await aiountil(lambda: "connected" in self.told, "the connection")
        return unwanted


def run(broker: PrivateBroker, test: Callable[[Site, Service], Awaitable[None]]) -> None:
    service = Service(broker)

    async def whole() -> None:
        site = Site(service)
        try:
            await test(site, service)
        finally:
            await site.worker.finish(1, goodbye=True)
            await site.worker.close(1)

    try:
        asyncio.run(whole())
    finally:
        service.close()


def test_commands_come_and_are_acknowledged_when_they_are_finished(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.connect()
        site.hold = asyncio.Event()
        service.send(service.command(1))
        service.send(b"no command")
        await aiountil(lambda: bool(site.names and site.rejected), "both")
        assert site.names == ["uep.1"]
        assert "not JSON" in site.rejected[0]
        await aiountil(lambda: service.beats() > 2, "heartbeats")
        os.kill(site.pid, signal.SIGKILL)  # nothing was acknowledged but what is finished
        site.hold.set()
        await aiountil(lambda: site.names == ["uep.1"] * 2, "the command to come again")
        assert len(site.rejected) == 1
        assert site.told[-1] == "connected"

    run(broker, test)


def test_a_command_of_which_nobody_can_be_told_costs_nobody_another_one(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.connect()
        pid, unusable = site.pid, service.command(1)
        unusable["kwargs"]["amqp_creds"]["more"] = "\x7f" * 1_500_000
        service.send(json.dumps(unusable, ensure_ascii=False).encode())
        service.send(service.command(2))
        await aiountil(lambda: bool(site.rejected and site.names), "both")
        assert "amqp_creds is too large" in site.rejected[0]
        assert site.names == ["uep.2"]
        assert site.pid == pid

    run(broker, test)


def test_it_is_its_own_account_and_has_no_rights(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.connect()
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{site.pid}/status").read_text().splitlines() if ":\t" in line
        )
        own = helper_account.find(ManagerConfig()).worker.uid
        assert status["Uid"].split() == [str(own)] * 4
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        environment = Path(f"/proc/{site.pid}/environ").read_bytes() + Path(f"/proc/{site.pid}/cmdline").read_bytes()
        assert b"amqp" not in environment

    run(broker, test)


def test_notices_are_delivered_or_not(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.connect()
        credentials = service.command(5)["kwargs"]["amqp_creds"]
        assert await site.worker.send(plain(credentials), "because", "r1") is True
        assert await site.worker.send_again(seal(plain(credentials)), "because") is True
        assert await site.worker.send(plain({}), "because", "r2") is False
        assert await site.worker.send(Credentials(plain(credentials).file, new_key()), "because", "r3") is False
        texts = []
        while (got := service.channel.basic_get(f"{service.name}.beats", auto_ack=True))[0] is not None:
            if got[0].routing_key == "notice.5":
                texts.append(got[2])
        assert len(texts) == 2
        assert all(b"because" in text for text in texts)

    run(broker, test)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_dies_or_hangs_is_replaced(
    broker: PrivateBroker, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "SILENCE", 4.0)

    async def test(site: Site, service: Service) -> None:
        unwanted = await site.connect()
        for n in range(3):
            before = site.pid
            waiting = asyncio.ensure_future(site.worker.send(plain({"heartbeat_queue_info": {}}), "x", "r"))
            os.kill(before, number)
            await aiountil(lambda before=before: site.pid != before, "another one")  # type: ignore[misc]
            service.send(service.command(n))
            await aiountil(lambda n=n: f"uep.{n}" in site.names, "its command")  # type: ignore[misc]
            assert await waiting is False
        assert not unwanted.done()
        assert any("the worker was lost" in told for told in site.told)

    run(broker, test)


def test_one_that_dies_before_it_is_to_consume_is_replaced(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.worker.probe(NoStatus())
        os.kill(site.pid, signal.SIGKILL)
        await aiountil(lambda: site.worker._channel is None, "the loss")
        site.worker.start(site)
        await aiountil(lambda: "connected" in site.told, "the connection of the other one", patience=60)

    run(broker, test)


def test_what_it_works_on_goes_on_when_it_is_lost(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        site.hold = asyncio.Event()
        await site.connect()
        service.send(service.command(1))
        await aiountil(lambda: bool(site.names), "the command")
        (task,) = site.worker._commands
        os.kill(site.pid, signal.SIGKILL)
        await aiountil(lambda: len(site.names) == 2, "it to come again")
        assert not task.done()
        site.hold.set()
        await aiountil(lambda: not site.worker._commands, "both to end")
        assert not task.cancelled()

    run(broker, test)


def test_commands_that_are_given_back_come_again(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        site.hold = asyncio.Event()
        await site.connect()
        service.send(service.command(1))
        await aiountil(lambda: bool(site.names), "the command")
        for task in site.worker._commands:
            task.cancel()
        await site.worker.finish(30, goodbye=True)
        await site.worker.close(5)
        await aiountil(lambda: service.waiting() == 1, "the command to be back in the queue")

    run(broker, test)


def test_a_broker_that_is_not_there_is_told_at_the_start(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        commands = {"connection_url": "amqp://u:hunter2@127.0.0.1:1/", "queue": "q"}
        site.worker._addresses = file({**service.addresses, "commands": commands})
        with pytest.raises(HelperUnavailable, match=r"the broker that the service names: .*refused") as caught:
            await site.worker.probe(NoStatus())
        assert "hunter2" not in str(caught.value)
        assert caught.value.exit_code == os.EX_TEMPFAIL

    run(broker, test)


def test_new_addresses_are_asked_for_until_there_are_some_or_will_be_none(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        unwanted = await site.connect()
        site.renewals = [NotNow("not yet"), ZeroDivisionError("a fault of ours"), service.addresses]
        service.channel.queue_delete(f"{service.name}.commands")
        await aiountil(lambda: len(site.renewals) < 3, "the first question")
        service.channel.queue_declare(f"{service.name}.commands")
        before = site.told.count("connected")
        await aiountil(lambda: site.told.count("connected") > before, "the connection", patience=60)
        site.renewals = [EndpointUnwanted(os.EX_DATAERR, "deleted")]
        service.channel.queue_delete(f"{service.name}.commands")
        with pytest.raises(EndpointUnwanted, match="deleted"):
            await unwanted

    run(broker, test)


def test_credentials_are_sealed_and_opened(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.worker.probe(NoStatus())  # it need not consume yet
        credentials, key = plain({"a": "x" * 60_000}), new_key()
        sealed_ones = await site.worker.seal(credentials, key)
        assert sealed_ones.key == key
        assert inside(sealed_ones) == inside(credentials)
        again = await site.worker.seal(sealed_ones, new_key(), "its right to run has ended")
        assert inside(again) == inside(credentials)
        text = Fernet(again.key).decrypt(again.file.read())
        assert json.loads(text)["ending"] == "its right to run has ended"
        for each in (again, credentials):
            opened = await site.worker.open(each)
            assert opened.key == "" and inside(opened) == inside(credentials)
        with pytest.raises(NotSealed, match="its key does not open it"):
            await site.worker.open(Credentials(again.file, new_key()))
        with pytest.raises(NotSealed, match="limit"):
            await site.worker.seal(plain({"a": "x" * 300_000}), key)
        pid = site.pid
        with pytest.raises(NotSealed, match="the result has"):  # sealed it is a third longer
            await site.worker.seal(plain({"a": "x" * 200_000}), key)
        with pytest.raises(NotSealed, match="the result has"):
            token = Fernet(key).encrypt(b'{"amqp_creds": {"a": "' + b"\x7f" * 60_000 + b'"}}')
            await site.worker.open(Credentials(SealedFile.of(token), key))
        assert site.pid == pid

    run(broker, test)


def test_a_worker_that_is_lost_meanwhile_has_a_successor_that_seals(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.connect()
        os.kill(site.pid, signal.SIGSTOP)
        sealing = asyncio.ensure_future(site.worker.seal(plain({"a": "b"}), new_key()))
        await asyncio.sleep(0)
        os.kill(site.pid, signal.SIGKILL)
        assert inside(await sealing) == {"a": "b"}
        monkeypatch.setattr(worker_process, "SEAL_LIMIT", 0.2)
        os.kill(site.pid, signal.SIGSTOP)
        with pytest.raises(NotSealed, match=r"within 0\.2 s"):
            await site.worker.seal(plain({"a": "b"}), new_key())
        pid = site.pid
        os.kill(pid, signal.SIGCONT)  # it answers what nobody waits for any more, and that is no fault of its
        monkeypatch.setattr(worker_process, "SEAL_LIMIT", 30.0)
        assert inside(await site.worker.seal(plain({"c": "d"}), new_key())) == {"c": "d"}
        assert site.pid == pid

    run(broker, test)


# One that was taken over.


class Theirs:
    """What plays the worker: each is a socket, by number. In the place of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends: list[socket.socket] = []
        monkeypatch.setattr(worker_process, "FIRST_PAUSE", 0.0)
        monkeypatch.setattr(worker_process, "LONGEST_PAUSE", 0.0)
        monkeypatch.setattr(worker_process, "MARGIN", 0.1)
        monkeypatch.setattr(worker_process.helper, "start", self._start)

    async def _start(self, _module: str, _account: object, connection: socket.socket) -> Any:
        self.ends.append(connection.dup())
        return self

    pid = 1

    def kill(self) -> None:
        pass

    async def end(self) -> None:
        pass

    def say(self, kind: int, number: int, body: bytes = b"{}", *files: bytes) -> None:
        """Raises OSError when nobody listens to it any more."""
        made = [SealedFile.of(each) for each in files]
        socket.send_fds(self.ends[-1], [HEADER.pack(kind, number) + body], [each.descriptor for each in made])

    def asked(self, kind: ToWorker) -> int:
        """The number of the newest question of that kind."""
        number = 0
        self.ends[-1].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data, files, _, _ = socket.recv_fds(self.ends[-1], HEADER.size + BODY, 8)
                for descriptor in files:
                    os.close(descriptor)
                said, of = HEADER.unpack_from(data)
                number = of if said == kind else number
        return number

    async def replaced(self, before: int) -> None:
        await aiountil(lambda: len(self.ends) > before, "another one")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Theirs]:
    made = Theirs(monkeypatch)
    yield made
    for end in made.ends:
        end.close()


class NoService:
    addresses: Mapping[str, Any] = {}


def start_of(command: StartEndpoint) -> list[bytes]:
    return [write_command(command), command.credentials.file.read()]


def a_command() -> StartEndpoint:
    return StartEndpoint("r1", "uep.x", UEP, "{}", "{}", plain({}), "me", "me@x", [])


TOKEN = seal(plain({"a": "b"})).file.read()
SENSELESS: dict[str, Callable[[Theirs, int], None]] = {
    "sealed without a question": lambda it, n: it.say(FromWorker.SEALED, n + 7, b"{}", TOKEN),
    "sealed twice": lambda it, n: [it.say(FromWorker.SEALED, n, b"{}", TOKEN) for _ in range(2)],  # type: ignore[misc]
    "opened, though it was to seal": lambda it, n: it.say(FromWorker.OPENED, n, b"{}", b"{}"),
    "the answer to another question": lambda it, n: it.say(FromWorker.NOTICED, n, b'{"delivered": true}'),
    "sealed, and not": lambda it, n: (  # type: ignore[dict-item, return-value]
        it.say(FromWorker.SEALED, n, b"{}", TOKEN),
        it.say(FromWorker.NOT_SEALED, n, b'{"why": "x"}'),
    ),
    "what it says is no token": lambda it, n: it.say(FromWorker.SEALED, n, b"{}", b'{"amqp_creds": {}}'),
    "sealed, and no file": lambda it, n: it.say(FromWorker.SEALED, n),
    "too large": lambda it, n: it.say(FromWorker.SEALED, n, b"{}", b"x" * 300_000),
    "a probe that nobody wanted": lambda it, n: it.say(FromWorker.PROBED, 0, b'{"error": ""}'),
    "closed": lambda it, n: it.say(FromWorker.CLOSED, 0),
    "some more instances": lambda it, n: it.say(FromWorker.SHARED, 0, b'{"others": "some"}'),
    "a command twice": lambda it, n: [it.say(FromWorker.START, 5, b"{}", *start_of(a_command())) for _ in range(2)],  # type: ignore[misc]
    "a kind that there is not": lambda it, n: it.say(999, n),
}


@pytest.mark.parametrize("what", SENSELESS.values(), ids=SENSELESS)
def test_what_is_not_allowed_in_its_state_replaces_it(theirs: Theirs, what: Callable[[Theirs, int], None]) -> None:
    """Nobody is harmed: the next one seals what the first did not."""

    async def whole() -> None:
        site = Site(NoService())  # type: ignore[arg-type]
        site.hold = asyncio.Event()
        await site.worker._begin()
        site.worker.start(site)
        key = new_key()
        sealing = asyncio.ensure_future(site.worker.seal(plain({"a": "b"}), key))
        await asyncio.sleep(0)
        what(theirs, theirs.asked(ToWorker.SEAL))
        await theirs.replaced(1)
        if not sealing.done():
            numbers: list[int] = []
            await aiountil(lambda: numbers.append(theirs.asked(ToWorker.SEAL)) or any(numbers), "the question")
            theirs.say(FromWorker.SEALED, max(numbers), b"{}", TOKEN)
        assert (await sealing).file.read() == TOKEN
        site.hold.set()
        await site.worker.finish(0.1, goodbye=True)
        await site.worker.close(0)

    asyncio.run(whole())


def test_that_the_endpoint_runs_elsewhere_too_is_forgotten_with_who_has_seen_it(theirs: Theirs) -> None:
    async def whole() -> None:
        site = Site(NoService())  # type: ignore[arg-type]
        await site.worker._begin()
        site.worker.start(site)
        for others in (2, 0, 1):
            theirs.say(FromWorker.SHARED, 0, json.dumps({"others": others}).encode())
        await aiountil(lambda: site.instances == [True, False, True], "the monitor to hear it")
        theirs.say(FromWorker.CLOSED, 0)  # senseless
        await theirs.replaced(1)
        assert site.instances == [True, False, True, False]
        await site.worker.finish(0.1, goodbye=True)
        await site.worker.close(0)

    asyncio.run(whole())


def test_one_that_lives_and_does_not_seal_is_replaced(theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "SILENCE", 4.0)

    async def whole() -> None:
        site = Site(NoService())  # type: ignore[arg-type]
        await site.worker._begin()
        site.worker.start(site)
        sealing = asyncio.ensure_future(site.worker.seal(plain({"a": "b"}), new_key()))

        def alive() -> bool:
            with contextlib.suppress(OSError):  # it is not listened to any more
                theirs.say(FromWorker.ALIVE, 0)
            return len(theirs.ends) > 1

        await aiountil(alive, "another one")
        assert "sealed nothing" in site.told[-1]
        numbers: list[int] = []
        await aiountil(lambda: numbers.append(theirs.asked(ToWorker.SEAL)) or any(numbers), "the question")
        theirs.say(FromWorker.SEALED, max(numbers), b"{}", TOKEN)
        assert (await sealing).file.read() == TOKEN
        await site.worker.finish(0.1, goodbye=True)
        await site.worker.close(0)

    asyncio.run(whole())


def test_one_that_does_not_seal_during_a_stop_has_its_last_words(
    theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "SILENCE", 0.4)

    async def whole() -> None:
        site = Site(NoService())  # type: ignore[arg-type]
        await site.worker._begin()
        sealing = asyncio.ensure_future(site.worker.seal(plain({"a": "b"}), new_key()))
        numbers: list[int] = []
        await aiountil(lambda: numbers.append(theirs.asked(ToWorker.SEAL)) or any(numbers), "the question")
        site.worker.start(site)
        (watch,) = site.worker._tasks
        await asyncio.sleep(0)  # it has seen the question
        finishing = asyncio.ensure_future(site.worker.finish(30, goodbye=True))
        await asyncio.wait({watch})
        assert site.worker._channel is not None and not finishing.done(), "it has not been ended"
        numbers.clear()
        await aiountil(lambda: numbers.append(theirs.asked(ToWorker.FINISH)) or any(numbers), "its end")
        theirs.say(FromWorker.FINISHED, max(numbers))
        await finishing
        sealing.cancel()
        await site.worker.close(0)

    asyncio.run(whole())


@pytest.mark.parametrize(
    "kind",
    [
        FromWorker.CONNECTED,
        FromWorker.NOT_CONNECTED,
        FromWorker.SHARED,
        FromWorker.RENEW,
        FromWorker.START,
        FromWorker.REJECT,
    ],
)
def test_what_may_not_be_said_before_it_is_to_consume(theirs: Theirs, kind: FromWorker) -> None:
    async def whole() -> None:
        site = Site(NoService())  # type: ignore[arg-type]
        probing = asyncio.ensure_future(site.worker.probe(NoStatus()))
        await aiountil(lambda: bool(theirs.ends), "the worker")
        files = {
            FromWorker.START: start_of(a_command()),
            FromWorker.REJECT: [write_rejection(Refusal("command", "a", "b"), "r1"), b""],
        }
        theirs.say(kind, 1, b'{"why": ""}', *files.get(kind, []))
        with pytest.raises(HelperUnavailable, match="before it was to consume"):
            await probing
        assert site.names == site.rejected == []

    asyncio.run(whole())


def test_one_that_was_taken_over(theirs: Theirs) -> None:
    """It says what it likes, at random: the monitor lives, replaces it, and starts nothing that is no command."""
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    good = json.loads(write_command(a_command()))
    files_of = {FromWorker.START: 2, FromWorker.REJECT: 2, FromWorker.SEALED: 1, FromWorker.OPENED: 1}

    def content() -> bytes:
        odd: list[Any] = [None, 5, "", "x" * 3000, [], {}, "../x", "a\nb", True]
        changed = {**good, draw.choice([*good, "more"]): draw.choice(odd)}
        return draw.choice([b"", b"[]", b"\xff", b"[" * 100_000, TOKEN, json.dumps(changed).encode()])

    def body() -> bytes:
        odd = [None, 5, -1, "x", "x" * 500, [], {}, True, 10**400]
        keys = ["why", "error", "delivered", "level", "name", "text", "period", "others"]
        return json.dumps({draw.choice(keys): draw.choice(odd) for _ in range(draw.randrange(5))}).encode()

    class Taker(Site):
        async def handle(self, command: StartEndpoint) -> None:
            assert read_command(write_command(command), command.credentials.file) == command, seed

        async def reject(self, refusal: Refusal, request_id: str, credentials: Credentials | None) -> None:
            assert refusal.stage in ("command", "options", "manager"), seed

    async def whole() -> None:
        site, status, since = Taker(NoService()), NoStatus(), time.monotonic()  # type: ignore[arg-type]
        site.worker._status = status
        await site.worker._begin()
        site.worker.start(site)
        before = len(os.listdir("/proc/self/fd"))
        sealing: list[asyncio.Future[Credentials]] = []
        for _ in range(5_000):
            if draw.random() < 0.05:
                sealing.append(asyncio.ensure_future(site.worker.seal(plain({}), new_key())))
            kind = draw.choice([*FromWorker, 0, 7, 65535])
            count = files_of.get(FromWorker(kind), 0) if kind in list(FromWorker) else 0  # type: ignore[arg-type]
            count = count if draw.random() < 0.95 else draw.randrange(4)
            asked = [*site.worker._asked, *range(5)]
            try:
                theirs.say(kind, draw.choice(asked), body(), *(content() for _ in range(count)))
            except OSError:
                theirs.ends[-1].close()
                await theirs.replaced(len(theirs.ends))
            await asyncio.sleep(0)
        for each in sealing:
            each.cancel()
        done = [each.result() for each in await settled(sealing) if not each.cancelled() and not each.exception()]
        assert all(each.file.read() == TOKEN for each in done), seed
        sealing.clear()
        done.clear()
        await site.worker.finish(5, goodbye=True)
        await site.worker.close(0)
        theirs.ends[-1].close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 1, seed
        assert len(theirs.ends) > 100, "it was replaced again and again"
        assert 0 < status.answers <= (time.monotonic() - since) / worker_process.STATUS_PERIOD + 1

    asyncio.run(whole())


async def settled(futures: list[asyncio.Future[Credentials]]) -> list[asyncio.Future[Credentials]]:
    """They, once all are done."""
    await asyncio.gather(*futures, return_exceptions=True)
    return futures


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("name", name) for name in ("../x", "", "x" * 200, "a b", 5, None)],
        ("user_options", "[]"),
        ("user_runtime", {}),
        *[("identity_set", value) for value in ([], "{}", None)],
        ("request_id", "r\n1"),
        ("requester", "x" * 2000),
    ],
)
def test_a_command_with_a_field_that_is_none(field: str, value: object) -> None:
    command = StartEndpoint("r1", "uep.x", UEP, "{}", "{}", plain({}), "me", "me@x", "[]")
    assert read_command(write_command(command), command.credentials.file) == command
    spoiled = dataclasses.replace(command, **{field: value})
    with pytest.raises(ValueError, match=field):
        read_command(write_command(spoiled), command.credentials.file)


@pytest.mark.parametrize(
    "text", ["", "plain", '"' * 5000, "\\" * 5000, "\u00e9" * 5000, "\n" * 5000, "\U0001f600" * 5000]
)
def test_a_text_is_cut_to_what_a_body_holds(text: str) -> None:
    kept = cut(text)
    assert text.startswith(kept)
    assert len(json.dumps({"level": 10, "name": "x" * 100, "text": kept})) <= BODY
    assert kept == text or len(json.dumps(kept)) > BODY // 2


def test_however_often_it_asks_for_new_addresses_the_service_is_asked_once_at_a_time(broker: PrivateBroker) -> None:
    async def test(site: Site, service: Service) -> None:
        await site.connect()
        asked, go_on = 0, asyncio.Event()

        async def renew() -> SealedFile:
            nonlocal asked
            asked += 1
            await go_on.wait()
            return file(service.addresses)

        site.worker._renew = renew
        for _ in range(100):
            site.worker._take(FromWorker.RENEW, 0, {}, [])
        await asyncio.sleep(0)
        assert asked == 1
        go_on.set()

    run(broker, test)


def test_a_worker_that_sends_commands_without_end_is_replaced(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "MOST_COMMANDS", 5)

    async def test(site: Site, service: Service) -> None:
        await site.connect()
        site.hold = asyncio.Event()
        before = site.pid
        for n in range(6):
            service.send(service.command(n))
        await aiountil(lambda: site.pid != before, "another one")
        assert len(set(site.names)) == 5
        site.hold.set()

    run(broker, test)


def test_a_rejection_of_a_stage_that_it_cannot_be_of() -> None:
    said = {"texts": ["a", "b"], "stage": "admission", "id": "r1"}
    with pytest.raises(ValueError, match="no refusal"):
        read_rejection(json.dumps(said).encode())
