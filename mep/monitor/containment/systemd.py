"""systemd, asked over D-Bus: start, change, kill and stop units (org.freedesktop.systemd1(5)). For `containment` only.

One connection to systemd's own socket, made at the first use and made anew at the next use when it was lost. There is
no bus in between: on that, any user could send us what he likes. Only root may connect, and only systemd answers.
It belongs to the event loop: nothing here blocks, polls, starts a process, or waits longer than TIMEOUT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, Message, MessageType, new_method_call
from jeepney.auth import BEGIN, Authenticator
from jeepney.io.asyncio import DBusConnection
from jeepney.wrappers import unwrap_msg

from mep.processes.time_limit import within

SOCKET = "/run/systemd/private"
"""Where systemd takes root's requests; `systemctl` of root uses it, too."""

TIMEOUT = 10.0
"""Seconds for one request to systemd, the job that it starts included."""

Properties = list[tuple[str, tuple[str, Any]]]
"""Of a unit: name, and (D-Bus type, value)."""

_NAME = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")
T = TypeVar("T")


class ContainmentError(Exception):
    """A user endpoint is not contained as it should be, or cannot be ended. The text is for the admin."""


class SystemdRefused(ContainmentError):
    """systemd answered with an error; `kind` is its D-Bus name without what comes before the last dot."""

    def __init__(self, what: str, error: DBusErrorResponse) -> None:
        self.kind = str(error.name).rpartition(".")[2]
        text = error.data[0] if error.data else error.name
        super().__init__(f"{what}: systemd says: {text}")


class Systemd:
    """The system's manager. Methods raise ContainmentError when it cannot be asked, SystemdRefused when it refuses."""

    def __init__(self) -> None:
        self._bus: _Bus | None = None
        self._connecting = asyncio.Lock()

    async def version(self) -> str:
        """For example `252`."""
        get = _properties_get(_MANAGER.object_path, _MANAGER.interface, "Version")
        ((_, text),) = await self._do("its version", lambda bus: bus.call(get))
        return str(text).partition(" ")[0].partition(".")[0]

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
        ping = DBusAddress(_MANAGER.object_path, _NAME, "org.freedesktop.DBus.Peer")
        await self._do(f"change {unit}", lambda bus: bus.call(new_method_call(ping, "Ping")))

    async def control_group(self, slice_: str) -> str:
        """The path of a slice's cgroup, as in /proc/PID/cgroup."""
        (path,) = await self._do(f"find {slice_}", lambda bus: bus.call(_call("GetUnit", "s", slice_)))
        get = _properties_get(path, f"{_NAME}.Slice", "ControlGroup")
        ((_, group),) = await self._do(f"find {slice_}", lambda bus: bus.call(get))
        return str(group)

    async def kill(self, unit: str, signal: int) -> None:
        """Sends a signal to every process in a unit. Harmless when there is none."""
        await self._if_there(f"kill {unit}", _call("KillUnit", "ssi", unit, "all", signal))

    async def stop(self, unit: str) -> None:
        """Has a unit stopped, and does not wait for the end of that. Harmless when it is gone."""
        await self._if_there(f"stop {unit}", _call("StopUnit", "ss", unit, "replace"))

    def close(self) -> None:
        """Closes the connection."""
        if self._bus is not None:
            self._bus.close()

    async def _if_there(self, what: str, request: Message) -> None:
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
        except DBusErrorResponse as error:
            raise SystemdRefused(what, error) from None

    async def _on_bus(self, operation: Callable[[_Bus], Awaitable[T]]) -> T:
        async with self._connecting:
            if self._bus is None or self._bus.lost:
                self._bus = await _Bus.open()
            bus = self._bus
        return await operation(bus)


class _Lost(Exception):
    """There is no connection, or no longer."""


class _Bus:
    """One connection, and the task that reads from it."""

    def __init__(self, connection: DBusConnection) -> None:
        self.lost = False
        self._connection = connection
        self._replies: dict[int, asyncio.Future[Message | None]] = {}
        self._listeners: set[asyncio.Queue[Message | None]] = set()
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(self._end)

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
            if isinstance(error, OSError | EOFError | ValueError):
                raise _Lost(str(error) or type(error).__name__) from None
            raise
        return cls(DBusConnection(reader, writer))

    def close(self) -> None:
        self._reader.cancel()

    async def call(self, request: Message) -> tuple[Any, ...]:
        """The reply's values. Raises _Lost, DBusErrorResponse."""
        return tuple(unwrap_msg(await self._reply(request)))

    async def job(self, request: Message) -> str:
        """How the job ended that a request started: `done`, or what went wrong. Raises _Lost, DBusErrorResponse."""
        removed: asyncio.Queue[Message | None] = asyncio.Queue()
        self._listeners.add(removed)  # before the request: the job may have ended when its reply is looked at
        try:
            (job,) = unwrap_msg(await self._reply(request))
            while signal := await removed.get():
                if signal.body[1] == job:
                    return str(signal.body[3])
        finally:
            self._listeners.discard(removed)
        raise _Lost("closed by the other side")

    async def _reply(self, request: Message) -> Message:
        if self.lost:
            raise _Lost("closed")
        serial = next(self._connection.outgoing_serial)
        future = self._replies[serial] = asyncio.get_running_loop().create_future()
        try:
            await self._connection.send(request, serial=serial)
            reply = await future
        except OSError as error:
            raise _Lost(str(error)) from None
        finally:
            del self._replies[serial]
        if reply is None:
            raise _Lost("closed by the other side")
        return reply

    async def _read(self) -> None:
        while True:
            message = await self._connection.receive()
            fields, kind = message.header.fields, message.header.message_type
            if kind in (MessageType.method_return, MessageType.error):
                future = self._replies.get(fields[HeaderFields.reply_serial])
                if future is not None and not future.done():
                    future.set_result(message)
            elif fields.get(HeaderFields.member) == "JobRemoved":
                for listener in self._listeners:
                    listener.put_nowait(message)

    def _end(self, reader: asyncio.Task[None]) -> None:
        """Whatever ended the reader, nobody waits any longer."""
        if not reader.cancelled():
            reader.exception()  # mostly EOFError; taken, so that asyncio does not complain about it
        self.lost = True
        self._connection.writer.close()
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
    authenticator = Authenticator()
    writer.write(authenticator.data_to_send() + BEGIN)
    authenticator.feed(await reader.readuntil(b"\r\n"))


def _call(method: str, signature: str = "", *values: Any) -> Message:
    return new_method_call(_MANAGER, method, signature, values)


def _properties_get(path: str, interface: str, name: str) -> Message:
    address = DBusAddress(path, _NAME, "org.freedesktop.DBus.Properties")
    return new_method_call(address, "Get", "ss", (interface, name))
