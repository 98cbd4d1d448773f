"""systemd over D-Bus: a real bus, and in place of systemd a service that answers as a test wants."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_error, new_method_return, new_signal
from jeepney.bus_messages import message_bus
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

from mep.monitor.containment import systemd
from mep.monitor.containment.systemd import ContainmentError, Systemd, SystemdRefused
from tests.conftest import need

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
JOB = "/org/freedesktop/systemd1/job/7"
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/>
  </policy>
</busconfig>
"""
Answers = dict[str, Callable[["Service", Message], Awaitable[None]]]
"""What the service does when a method of this name is called; what is not here is left without an answer."""


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bus of its own, which this process takes for the system's."""
    need(shutil.which("dbus-daemon") is not None, "needs dbus-daemon (lab/setup box)")
    config, socket = tmp_path / "bus.conf", tmp_path / "bus"
    config.write_text(BUS.format(socket=socket))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline(), "it listens"
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={socket}")
        yield
        daemon.terminate()


class Service:
    """Stands for systemd. `calls` are the methods that were called."""

    def __init__(self, connection: DBusConnection, answers: Answers) -> None:
        self.connection = connection
        self.calls: list[str] = []
        self._answers = answers

    async def reply(self, request: Message, signature: str = "", *values: Any) -> None:
        await self.connection.send(new_method_return(request, signature or None, values))

    async def refuse(self, request: Message, kind: str, text: str) -> None:
        await self.connection.send(new_error(request, f"{NAME}.{kind}", "s", (text,)))

    async def serve(self) -> None:
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


def run(answers: Answers, work: Callable[[Systemd, Service], Awaitable[None]]) -> None:
    """Runs `work` beside a service with these answers."""

    async def both() -> None:
        connection = await open_dbus_connection("SYSTEM")
        await connection.send(message_bus.RequestName(NAME), serial=next(connection.outgoing_serial))
        while (await connection.receive()).header.fields.get(HeaderFields.member) != "NameAcquired":
            pass
        service = Service(connection, {"Subscribe": nothing_more, **answers})
        serving = asyncio.ensure_future(service.serve())
        asked = Systemd()
        try:
            await work(asked, service)
        finally:
            asked.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await connection.close()

    asyncio.run(both())


def test_a_unit_is_started_when_its_job_is_done(bus: None) -> None:
    async def work(asked: Systemd, service: Service) -> None:
        await asked.start("x.scope", [("Description", ("s", "x"))])
        assert service.calls == ["Subscribe", "StartTransientUnit"]

    run({"StartTransientUnit": ends("done")}, work)


def test_a_job_that_fails_is_told(bus: None) -> None:
    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(ContainmentError, match=r"start x\.scope: systemd says: failed; `journalctl -u x\.scope`"):
            await asked.start("x.scope", [])

    run({"StartTransientUnit": ends("failed")}, work)


def test_a_refusal_has_its_kind(bus: None) -> None:
    async def refuse(service: Service, request: Message) -> None:
        await service.refuse(request, "UnitExists", "Unit x.scope already exists.")

    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(SystemdRefused, match="already exists") as caught:
            await asked.start("x.scope", [])
        assert caught.value.kind == "UnitExists"

    run({"StartTransientUnit": refuse}, work)


def test_a_signal_of_somebody_else_ends_no_job(bus: None) -> None:
    """Anybody on the bus may send what looks like the end of a job."""

    async def forged(service: Service, request: Message) -> None:
        stranger = await open_dbus_connection("SYSTEM")
        await stranger.send(removed(JOB, "failed"))
        await stranger.close()
        await service.reply(request, "o", JOB)
        await service.connection.send(removed("/org/freedesktop/systemd1/job/8", "failed"))  # another job
        await service.connection.send(removed(JOB, "done"))

    async def work(asked: Systemd, service: Service) -> None:
        await asked.start("x.scope", [])

    run({"StartTransientUnit": forged}, work)


def test_what_is_gone_is_killed_and_stopped(bus: None) -> None:
    async def gone(service: Service, request: Message) -> None:
        await service.refuse(request, "NoSuchUnit", "Unit x.scope not loaded.")

    async def work(asked: Systemd, service: Service) -> None:
        await asked.kill("x.scope", 9)
        await asked.stop("x.scope")
        assert service.calls == ["KillUnit", "StopUnit"]

    run({"KillUnit": gone, "StopUnit": gone}, work)


def test_a_systemd_that_says_nothing_is_not_waited_for(bus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "TIMEOUT", 0.3)

    async def work(asked: Systemd, service: Service) -> None:
        with pytest.raises(ContainmentError, match=r"stop x\.scope: no answer from systemd within 0\.3 s"):
            await asked.stop("x.scope")

    run({}, work)


def test_a_connection_that_was_lost_is_made_anew(bus: None) -> None:
    async def work(asked: Systemd, service: Service) -> None:
        await asked.stop("x.scope")
        assert asked._bus is not None
        asked._bus.close()
        await asyncio.sleep(0)
        await asked.stop("x.scope")
        assert service.calls == ["StopUnit", "StopUnit"]

    run({"StopUnit": nothing_more}, work)


def test_without_systemd_it_is_said(bus: None) -> None:
    async def work() -> None:
        asked = Systemd()
        try:
            with pytest.raises(ContainmentError, match=r"stop x\.scope: systemd says"):
                await asked.stop("x.scope")
        finally:
            asked.close()

    assert os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
    asyncio.run(work())


def test_versions_are_numbers(bus: None) -> None:
    async def version(service: Service, request: Message) -> None:
        await service.reply(request, "v", ("s", "252 (252.39-1~deb12u1)"))

    async def work(asked: Systemd, service: Service) -> None:
        assert await asked.version() == "252"

    run({"Get": version}, work)
