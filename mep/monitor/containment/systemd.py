"""systemd, asked over D-Bus: start, change, kill and stop units (org.freedesktop.systemd1(5)). For `containment` only.

One connection to systemd's own socket, made at the first use and made anew at the next use when it was lost. There is
no bus in between: on that, any user could send us what he likes. Only root may connect, and only systemd answers.
It belongs to the event loop: nothing here blocks, polls, starts a process, or waits longer than TIMEOUT.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from mep.monitor.containment import dbus
from mep.monitor.containment.dbus import Call, Malformed, Message
from mep.processes.time_limit import within

SOCKET = "/run/systemd/private"
"""Where systemd takes root's requests; `systemctl` of root uses it, too."""

TIMEOUT = 10.0
"""Seconds for one request to systemd, the job that it starts included."""

Properties = list[tuple[str, tuple[str, Any]]]
"""Of a unit: name, and (D-Bus type, value)."""

_NAME = "org.freedesktop.systemd1"
_PATH, _INTERFACE = "/org/freedesktop/systemd1", f"{_NAME}.Manager"
T = TypeVar("T")


class ContainmentError(Exception):
    """A user endpoint is not contained as it should be, or cannot be ended. The text is for the admin."""


class SystemdRefused(ContainmentError):
    """systemd answered with an error; `kind` is its D-Bus name without what comes before the last dot."""

    def __init__(self, what: str, error: _Refusal) -> None:
        self.kind = error.name.rpartition(".")[2]
        super().__init__(f"{what}: systemd says: {error}")


class Systemd:
    """The system's manager. Methods raise ContainmentError when it cannot be asked, SystemdRefused when it refuses."""

    def __init__(self) -> None:
        self._bus: _Bus | None = None
        self._connecting = asyncio.Lock()

    async def version(self) -> str:
        """For example `252`."""
        get = _properties_get(_PATH, _INTERFACE, "Version")
        text = await self._do("its version", lambda bus: bus.ask(get, "v"))
        return text.partition(" ")[0].partition(".")[0]

    async def start(self, unit: str, properties: Properties, also: Sequence[tuple[str, Properties]] = ()) -> None:
        """Makes a transient unit, with others that it needs, and waits until it is started.

        Raises SystemdRefused of kind `UnitExists` when there is one of these names.
        """
        request = _call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", properties, list(also))
        result = await self._do(f"start {unit}", lambda bus: bus.job(request))
        if result != "done":
            raise ContainmentError(f"start {unit}: systemd says: {result}; `journalctl -u {unit}` may say why")

    async def change(self, unit: str, properties: Properties) -> None:
        """Sets properties until the next boot. They are in force on return, if they can be."""
        request = _call("SetUnitProperties", "sba(sv)", unit, True, properties)
        await self._do(f"change {unit}", lambda bus: bus.call(request))
        # systemd answers first, and writes to the kernel before it takes the next message.
        ping = Call(_PATH, _NAME, "org.freedesktop.DBus.Peer", "Ping")
        await self._do(f"change {unit}", lambda bus: bus.call(ping))

    async def control_group(self, slice_: str) -> str:
        """The path of a slice's cgroup, as in /proc/PID/cgroup."""
        path = await self._do(f"find {slice_}", lambda bus: bus.ask(_call("GetUnit", "s", slice_), "o"))
        get = _properties_get(path, f"{_NAME}.Slice", "ControlGroup")
        return await self._do(f"find {slice_}", lambda bus: bus.ask(get, "v"))

    async def kill(self, unit: str, signal: int) -> None:
        """Sends a signal to every process in a unit. Harmless when there is none."""
        await self._if_there(f"kill {unit}", _call("KillUnit", "ssi", unit, "all", signal))

    async def stop(self, unit: str) -> None:
        """Has a unit stopped, and does not wait for the end of that. Harmless when it is gone."""
        await self._if_there(f"stop {unit}", _call("StopUnit", "ss", unit, "replace"))

    def close(self) -> None:
        """Closes the connection; the next request makes another one."""
        if self._bus is not None:
            self._bus.close()

    async def _if_there(self, what: str, request: Call) -> None:
        try:
            await self._do(what, lambda bus: bus.call(request))
        except SystemdRefused as refused:
            if refused.kind not in ("NoSuchUnit", "NoSuchProcess"):
                raise

    async def _do(self, what: str, operation: Callable[[_Bus], Awaitable[T]]) -> T:
        """An operation, once more when the connection is lost meanwhile: systemd may have been executed anew."""
        try:
            try:
                return await within(TIMEOUT, self._on_bus(operation))
            except _Lost:
                return await within(TIMEOUT, self._on_bus(operation))
        except asyncio.TimeoutError:
            raise ContainmentError(f"{what}: no answer from systemd within {TIMEOUT:g} s") from None
        except _Lost as error:
            raise ContainmentError(f"{what}: no connection to systemd at {SOCKET}: {error}") from None
        except Malformed as error:
            self.close()
            raise ContainmentError(f"{what}: {error}") from None
        except _Refusal as error:
            raise SystemdRefused(what, error) from None

    async def _on_bus(self, operation: Callable[[_Bus], Awaitable[T]]) -> T:
        async with self._connecting:
            if self._bus is None or self._bus.lost:
                self._bus = await _Bus.open()
            bus = self._bus
        return await operation(bus)


class _Lost(Exception):
    """There is no connection, or no longer."""


class _Refusal(Exception):
    """An error in place of a reply. `name` is its D-Bus name."""

    def __init__(self, error: Message) -> None:
        self.name = error.error
        super().__init__(error.values("s")[0] if error.signature == "s" else error.error)


class _Bus:
    """One connection, and the task that reads from it. lost: why there is none any more; empty while there is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lost = ""
        self._from, self._to = reader, writer
        self._serials = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Message | None]] = {}
        self._listeners: set[asyncio.Queue[tuple[str | int, ...] | None]] = set()
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(self._end)

    @classmethod
    async def open(cls) -> _Bus:
        """Raises _Lost."""
        try:
            reader, writer = await asyncio.open_unix_connection(SOCKET)
        except OSError as error:
            raise _Lost(error.strerror or str(error)) from None
        try:
            await _authenticate(reader, writer)
        except BaseException as error:
            writer.close()
            if isinstance(error, OSError | EOFError | ValueError | asyncio.LimitOverrunError):
                raise _Lost(str(error) or type(error).__name__) from None
            raise
        return cls(reader, writer)

    def close(self) -> None:
        self._reading.cancel()

    async def call(self, request: Call) -> None:
        """Waits for the reply, whatever it says. Raises _Lost, _Refusal, Malformed."""
        await self._reply(request)

    async def ask(self, request: Call, signature: str) -> str:
        """The text in the reply. Raises _Lost, _Refusal, Malformed."""
        (text,) = (await self._reply(request)).values(signature)
        return str(text)

    async def job(self, request: Call) -> str:
        """How the job ended that a request started: `done`, or what went wrong. Raises _Lost, _Refusal, Malformed."""
        removed: asyncio.Queue[tuple[str | int, ...] | None] = asyncio.Queue()
        self._listeners.add(removed)  # before the request: the job may have ended when its reply is looked at
        try:
            job = await self.ask(request, "o")
            while signal := await removed.get():
                if signal[1] == job:
                    return str(signal[3])
        finally:
            self._listeners.discard(removed)
        raise _Lost(self.lost)

    async def _reply(self, request: Call) -> Message:
        if self.lost:
            raise _Lost(self.lost)
        serial = next(self._serials)
        data = request.encode(serial)
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._replies[serial] = future
        try:
            self._to.write(data)
            await self._to.drain()
            reply = await future
        except OSError as error:
            raise _Lost(str(error)) from None
        finally:
            del self._replies[serial]
        if reply is None:
            raise _Lost(self.lost)
        if reply.kind == dbus.ERROR:
            raise _Refusal(reply)
        return reply

    async def _read(self) -> None:
        while True:
            prefix = await self._from.readexactly(dbus.PREFIX)
            message = dbus.decode(prefix + await self._from.readexactly(dbus.rest_of(prefix)))
            if message.kind in (dbus.REPLY, dbus.ERROR):
                future = self._replies.get(message.reply_to)
                if future is not None and not future.done():
                    future.set_result(message)
            elif message.kind == dbus.SIGNAL and message.member == "JobRemoved":
                values = message.values("uoss")
                for listener in self._listeners:
                    listener.put_nowait(values)

    def _end(self, reading: asyncio.Task[None]) -> None:
        """Whatever ended the reader, nobody waits any longer."""
        error = None if reading.cancelled() else reading.exception()
        self.lost = f"systemd has sent {error}" if isinstance(error, Malformed) else "closed by the other side"
        self._to.close()
        for future in self._replies.values():
            if not future.done():
                future.set_result(None)
        for listener in self._listeners:
            listener.put_nowait(None)


async def _authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says who we are, as the D-Bus specification has it; systemd has asked the kernel already.

    BEGIN goes before the answer, as `systemctl` sends it: a request that systemd reads together with BEGIN lies there
    until another one comes.
    """
    uid = str(os.geteuid()).encode().hex()
    writer.write(f"\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n".encode())
    answer = await reader.readuntil(b"\r\n")
    if not answer.startswith(b"OK "):
        raise Malformed(f"systemd has answered {answer[:80]!r} to a client with uid {os.geteuid()}")


def _call(method: str, signature: str = "", *values: Any) -> Call:
    return Call(_PATH, _NAME, _INTERFACE, method, signature, values)


def _properties_get(path: str, interface: str, name: str) -> Call:
    return Call(path, _NAME, "org.freedesktop.DBus.Properties", "Get", "ss", (interface, name))
