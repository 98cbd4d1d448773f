"""Starts and stops the hub: everything that can fail at the start fails here, before anything is half made.

Order: database, broker, sockets, then the loops and the web server. SIGTERM and SIGINT end the web server; the rest
follows in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import uvicorn
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from hub import credentials, systemd
from hub.app import Hub
from hub.config import HubConfig, TlsConfig
from hub.connections import Crowd, HttpConnection
from hub.limits import App
from hub.setup.rabbitmq import GUEST
from hub.store.migration import NewerDatabase
from hub.store.store import Store
from wire.connection import Connection
from wire.errors import BrokerError

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1")
GRACE = 2
"""Seconds for open requests to end after SIGTERM."""


class CannotStart(Exception):
    """The hub cannot start; the text says what is in the way."""


async def serve(config: HubConfig) -> None:
    """Runs the hub until SIGTERM or SIGINT.

    Raises:
        CannotStart: the database, the broker or the listen address cannot be used.
    """
    # Before anybody could ask us who `guest` is.
    await _refuse_guest(config.broker.url)
    with ExitStack() as stack:
        sockets = [stack.enter_context(s) for s in systemd.given_sockets()]
        if sockets:
            _check_given(sockets, config.host, config.port)
        else:
            sockets = [stack.enter_context(s) for s in _bind(config.host, config.port)]
        if config.questions != config.port:
            sockets += [stack.enter_context(s) for s in _bind(LOOPBACK[0], config.questions, shared=True)]
        tls_sockets = []
        if config.tls is not None:
            _check_certificate(config.tls)
            tls_sockets = [
                stack.enter_context(s) for s in _bind(config.tls.host, config.tls.port, "tls.listen", shared=True)
            ]
        try:
            connection = await Connection.open(config.broker.url)
        except BrokerError as e:
            raise CannotStart(f"broker.url: {e}") from None
        try:
            store = stack.enter_context(closing(Store(config.database)))
            changed = await credentials.end_old(store, config.clients.values())
        except (OSError, SQLAlchemyError, NewerDatabase) as e:
            await connection.close()
            reason = e.orig if isinstance(e, DBAPIError) else e  # without SQLAlchemy's hints for programmers
            raise CannotStart(f"database: {config.database.render_as_string()}: {reason}") from None
        for client_id in changed:
            log.warning("Client %s has another secret than before: all that came of the old one has ended", client_id)
        hub = Hub(config, store)
        loops = asyncio.ensure_future(hub.run(connection))
        crowd = Crowd()
        servers = {_WebServer(_web(hub.app, None, crowd)): sockets}
        if config.tls is not None:
            servers[_WebServer(_web(hub.app, config.tls, crowd))] = tls_sockets

        def stop() -> None:
            for server in servers:
                server.stop()

        _stop_on_signals(stop)
        loops.add_done_callback(lambda _: stop())
        await asyncio.wait({loops, asyncio.ensure_future(hub.connected())}, return_when=asyncio.FIRST_COMPLETED)
        log.info("Ready at http://%s:%d", f"[{config.host}]" if ":" in config.host else config.host, config.port)
        systemd.notify_ready()
        try:
            await asyncio.gather(*(server.serve(listening) for server, listening in servers.items()))
        finally:
            await _end(loops)


class _WebServer(uvicorn.Server):
    """Leaves signals to us: uvicorn's own handlers end the process by the signal, which is no clean exit."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Takes no more requests; `serve` returns within GRACE seconds."""
        self.should_exit = True


def _web(app: App, tls: TlsConfig | None, crowd: Crowd) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=cast(Any, functools.partial(HttpConnection, crowd=crowd)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # any account of this host could send them, and be whoever it likes
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )


def _check_certificate(tls: TlsConfig) -> None:
    """Reads certificate and key.

    Raises:
        CannotStart: they cannot be read, or do not belong together.
    """
    try:
        # A key that needs a password is an error; nobody is there to be asked for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except OSError as e:
        reason = f"not a certificate and its key ({e.reason})" if isinstance(e, ssl.SSLError) else e.strerror
        raise CannotStart(f"tls: {tls.certificate} with {tls.key}: {reason}") from None


def _stop_on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def _end(loops: asyncio.Future[None]) -> None:
    """Stops the loops; when they have ended by themselves, which they never should, their error is ours."""
    if loops.done():
        loops.result()
    loops.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loops


def _has_ipv6() -> bool:
    """Tells whether ::1 is an address of this host, which a kernel may be told to do without."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK[1], 0))
    except OSError:
        return False
    return True


async def _refuse_guest(url: str) -> None:
    """Tries to be RabbitMQ's own administrator, whose name and password everybody knows.

    Raises:
        CannotStart: everybody on the broker's host, or beyond, is administrator of the broker.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    try:
        connection = await Connection.open(urlunsplit(parts._replace(netloc=f"{GUEST}:{GUEST}@{host}")))
    except BrokerError as e:
        # The broker looks at the virtual host only once it has accepted the password.
        if "NOT_ALLOWED" not in str(e):
            return
    else:
        await connection.close()
    raise CannotStart(
        f"broker: anybody can log in to it as {GUEST!r} with password {GUEST!r}, and start processes as every mapped"
        " account; set it up with: mep-hub setup (or: rabbitmqctl delete_user guest)"
    )


def _check_given(sockets: list[socket.socket], host: str, port: int) -> None:
    """Compares the sockets of mep-hub.socket with `listen` of hub.yaml.

    Raises:
        CannotStart: they are not the same addresses.
    """
    given = {each.getsockname()[:2] for each in sockets}
    wanted = {address for _, address in _addresses(host, port)}
    spare = {(LOOPBACK[1], port)}  # an address that the kernel may have been told to do without
    if not wanted <= given or not given <= wanted | spare:
        raise CannotStart(
            f"mep-hub.socket listens on {_listed(given)}, hub.yaml says `listen: {host}:{port}`; make them the same"
            " (systemctl edit mep-hub.socket), then: systemctl restart mep-hub.socket"
        )


def _listed(addresses: set[tuple[str, int]]) -> str:
    return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in sorted(addresses))


def _bind(host: str, port: int, where: str = "listen", *, shared: bool = False) -> list[socket.socket]:
    """Listens on each address of `host`; when it is `shared`, other hubs of the same account may listen there, too.

    Raises:
        CannotStart: an address cannot be used; no socket is left open then.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            # The protocol is named because asyncio sets TCP_NODELAY only then: without it each answer takes 40 ms.
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(1024)
    except OSError as e:
        for opened in sockets:
            opened.close()
        raise CannotStart(f"{where}: {host}:{port}: {e.strerror or e}") from None
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """Finds the addresses of `host`, each with its family; of loopback both, 127.0.0.1 and ::1.

    Clients are told `localhost`, which is both: what we left free would be anybody's, who could pose as the hub.
    """
    names = LOOPBACK if host in ("localhost", *LOOPBACK) else (host,)
    found = [info for name in names for info in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    families = {(str(info[4][0]), int(info[4][1])): info[0] for info in found}
    return [
        (family, address)
        for address, family in families.items()
        if family != socket.AF_INET6 or address[0] == host or _has_ipv6()
    ]
