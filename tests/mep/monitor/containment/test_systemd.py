"""systemd over D-Bus: a socket like its own, and behind it a service that answers as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_error, new_method_return, new_signal
from jeepney.io.asyncio import DBusConnection

from mep.monitor.containment import systemd
from mep.monitor.containment.systemd import ContainmentError, Systemd, SystemdRefused

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
JOB = "/org/freedesktop/systemd1/job/7"
Answers = dict[str, Callable[["Service", Message], Awaitable[None]]]
"""What the service does when a method of this name is called; what is not here is left without an answer."""


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process looks for systemd; nobody listens yet."""
    path = tmp_path / "private"
    monkeypatch.setattr(systemd, "SOCKET", str(path))
    return path


class Service:
    """Stands for systemd. `calls` are the methods that were called."""

    def __init__(self, answers: Answers) -> None:
        self.connection: DBusConnection
        self.calls: list[str] = []
        self._answers = answers

    async def reply(self, request: Message, signature: str = "", *values: Any) -> None:
        await self.connection.send(new_method_return(request, signature or None, values))

    async def refuse(self, request: Message, kind: str, text: str) -> None:
        await self.connection.send(new_error(request, f"{NAME}.{kind}", "s", (text,)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            assert (await reader.readline()).startswith(b"\0AUTH EXTERNAL ")
            assert await reader.readline() == b"BEGIN\r\n", "before it is answered"
            writer.write(b"OK 1234deadbeef\r\n")
            self.connection = DBusConnection(reader, writer)
            while True:
                request = await self.connection.receive()
                member = request.header.fields.get(HeaderFields.member)
                if request.header.message_type is MessageType.method_call and member is not None:
                    self.calls.append(member)
                    if member in self._answers:
                        await self._answers[member](self, request)


async def nothing_more(service: Service, request: Message) -> None:
    await service.reply(request)


def removed(job: str, result: str) -> Message:
    return new_signal(MANAGER, "JobRemoved", "uoss", (7, job, "x.scope", result))


def ends(result: str) -> Callable[[Service, Message], Awaitable[None]]:
    """A job that has ended before its reply is sent, as systemd may do it."""

    async def answer(service: Service, request: Message) -> None:
        await service.connection.send(removed(JOB, result))
        await service.reply(request, "o", JOB)

    return answer


def run(socket: Path, answers: Answers, work: Callable[[Systemd, Service], Awaitable[None]]) -> None:
    """Runs `work` beside a service with these answers."""

    async def both() -> None:
        service, asked = Service(answers), Systemd()
        serving: set[asyncio.Task[None]] = set()

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.add(asyncio.ensure_future(service.serve(reader, writer)))

        server = await asyncio.start_unix_server(serve, socket)
        try:
            await work(asked, service)
        finally:
            asked.close()
            server.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    asyncio.run(both())


def test_a_unit_is_started_when_its_job_is_done(socket: Path) -> None:
    async def work(asked: Systemd, service: Service) -> None:
        await asked.start("x.scope", [("Description", ("s", "x"))])
        assert service.calls == ["StartTransientUnit"]

    run(socket, {"StartTransientUnit": ends("done")}, work)


def test_a_job_that_fails_is_told(socket: Path) -> None:
    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(ContainmentError, match=r"start x\.scope: systemd says: failed; `journalctl -u x\.scope`"):
            await asked.start("x.scope", [])

    run(socket, {"StartTransientUnit": ends("failed")}, work)


def test_a_refusal_has_its_kind(socket: Path) -> None:
    async def refuse(service: Service, request: Message) -> None:
        await service.refuse(request, "UnitExists", "Unit x.scope already exists.")

    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(SystemdRefused, match="already exists") as caught:
            await asked.start("x.scope", [])
        assert caught.value.kind == "UnitExists"

    run(socket, {"StartTransientUnit": refuse}, work)


def test_the_end_of_another_job_ends_no_job(socket: Path) -> None:
    async def another_first(service: Service, request: Message) -> None:
        await service.reply(request, "o", JOB)
        await service.connection.send(removed("/org/freedesktop/systemd1/job/8", "failed"))
        await service.connection.send(removed(JOB, "done"))

    async def work(asked: Systemd, service: Service) -> None:
        await asked.start("x.scope", [])

    run(socket, {"StartTransientUnit": another_first}, work)


def test_what_is_gone_is_killed_and_stopped(socket: Path) -> None:
    async def gone(service: Service, request: Message) -> None:
        await service.refuse(request, "NoSuchUnit", "Unit x.scope not loaded.")

    async def work(asked: Systemd, service: Service) -> None:
        await asked.kill("x.scope", 9)
        await asked.stop("x.scope")
        assert service.calls == ["KillUnit", "StopUnit"]

    run(socket, {"KillUnit": gone, "StopUnit": gone}, work)


def test_a_systemd_that_says_nothing_is_not_waited_for(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "TIMEOUT", 0.3)

    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(ContainmentError, match=r"stop x\.scope: no answer from systemd within 0\.3 s"):
            await asked.stop("x.scope")

    run(socket, {}, work)


def test_a_connection_that_was_lost_is_made_anew(socket: Path) -> None:
    async def work(asked: Systemd, service: Service) -> None:
        await asked.stop("x.scope")
        assert asked._bus is not None
        asked._bus.close()
        await asyncio.sleep(0)
        await asked.stop("x.scope")
        assert service.calls == ["StopUnit", "StopUnit"]

    run(socket, {"StopUnit": nothing_more}, work)


def with_length(message: Message, length: int) -> bytes:
    data = message.serialise(serial=9)
    return data[:4] + struct.pack("<I", length) + data[8:]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (lambda request: b"HTTP/1.1 400 Bad Request\r\n", "systemd has sent no D-Bus message begins with 48545450"),
        (lambda request: with_length(new_method_return(request), 2**31), "of more than 1048576 bytes"),
        (lambda request: with_length(new_method_return(request), 3) + b"abc", "a body without signature"),
        (lambda request: removed(JOB, "done").serialise(serial=9).replace(b"/job/7", b"/job//"), "is not of type o"),
    ],
    ids=["no message", "too long", "no signature", "bad signal"],
)
def test_what_is_no_message_ends_the_connection(socket: Path, sent: Callable[[Message], bytes], why: str) -> None:
    async def rubbish(service: Service, request: Message) -> None:
        service.connection.writer.write(sent(request))

    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(ContainmentError, match=why):
            await asked.kill("x.scope", 9)
        assert service.calls == ["KillUnit", "KillUnit"], "once more on a connection of its own"
        await asked.stop("x.scope")

    run(socket, {"KillUnit": rubbish, "StopUnit": nothing_more}, work)


def test_an_answer_of_another_type_ends_the_connection(socket: Path) -> None:
    async def number(service: Service, request: Message) -> None:
        await service.reply(request, "u", 7)

    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(ContainmentError, match=r"start x\.scope: a body of type 'u' where 'o' belongs"):
            await asked.start("x.scope", [])
        await asked.stop("x.scope")

    run(socket, {"StartTransientUnit": number, "StopUnit": nothing_more}, work)


@pytest.mark.parametrize("first", [None, b"", b"REJECTED\r\n", b"x" * 2**18], ids=lambda first: repr(first)[:20])
def test_without_systemd_it_is_said(socket: Path, first: bytes | None) -> None:
    """first: what whoever listens there says; None: nobody does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(first or b"")
        writer.close()

    async def work() -> None:
        server = None if first is None else await asyncio.start_unix_server(serve, socket)
        with pytest.raises(ContainmentError, match=r"stop x\.scope: no connection to systemd at /"):
            await Systemd().stop("x.scope")
        if server is not None:
            server.close()

    asyncio.run(work())


def test_versions_are_numbers(socket: Path) -> None:
    async def version(service: Service, request: Message) -> None:
        await service.reply(request, "v", ("s", "252 (252.39-1~deb12u1)"))

    async def work(asked: Systemd, service: Service) -> None:
        assert await asked.version() == "252"

    run(socket, {"Get": version}, work)
