"""Who listens on a port of this host: whoever takes a port of loopback first must not be taken for the service.

Without TLS the peer proves nothing, and on loopback any account may listen while the service is down. There the kernel
says whose a listening socket is. The rule: it must be root's, a system account's (uid below 1000, as those are that
packages make), or our own account's. It is asked once the connection is made and before anything is said on it. Beyond
loopback, and with TLS, there is nothing to ask: there the network, or the certificate, says who it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FIRST_ORDINARY_UID = 1000
"""Of accounts of people, on Enterprise Linux and Debian alike."""

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTENING = b"0A"
_PORTS = {"http": 80, "amqp": 5672}


class StrangerListens(Exception):
    """Somebody listens who may be anybody; the text says who, where, and what to do."""


def check_url(url: str) -> None:
    """Checks who listens where an `http` or `amqp` URL leads, if that is loopback.

    Looks up the host's name, which may take a while.

    Raises:
        StrangerListens: an account that is not trusted with what is said there.
    """
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    if parts.scheme not in _PORTS or not parts.hostname or not port:
        return
    with contextlib.suppress(OSError):  # who connects will say so
        for info in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM):
            check_peer(str(info[4][0]), port)


def check_peer(address: str, port: int) -> None:
    """Checks who listens at this address, if that is loopback.

    Raises:
        StrangerListens: an account that is not trusted with what is said there.
    """
    wanted = ipaddress.ip_address(address.partition("%")[0])
    mapped = wanted.ipv4_mapped if isinstance(wanted, ipaddress.IPv6Address) else None
    wanted = mapped or wanted
    if not wanted.is_loopback:
        return
    strangers = {uid for uid in _listeners(wanted, port) if FIRST_ORDINARY_UID <= uid != os.geteuid()}
    if strangers:
        raise StrangerListens(
            f"port {port} of {wanted} is listened on by an ordinary account (uid {min(strangers)}), not by root or a"
            " system account: not connected, because that may be anybody; end that process, and run the service as a"
            " system account or with TLS"
        )


def account_of_connection(peer: tuple[Any, ...], own: tuple[Any, ...]) -> int | None:
    """Returns the uid whose socket is at the other end of a connection over loopback; None when it has gone.

    The addresses are those of the accepted socket, as the socket module gives them.
    """
    return accounts_of_connections([(peer, own)]).get((peer, own))


def accounts_of_connections(
    connections: Collection[tuple[tuple[Any, ...], tuple[Any, ...]]],
) -> dict[tuple[tuple[Any, ...], tuple[Any, ...]], int]:
    """Returns the same for many connections, from one look; those that have gone are not in it."""
    wanted = {f"{_text(peer)} {_text(own)}".encode(): (peer, own) for peer, own in connections}
    found = {}
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_bytes().split(b"\n"):
                fields = line.split(None, 8)
                ends = wanted.get(b" ".join(fields[1:3]))
                if ends is not None:
                    found[ends] = int(fields[7])
    return found


def _listeners(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Iterable[int]:
    """Yields the uids of those who listen on a port, at this address or at all."""
    for table in _TABLES:
        try:
            lines = table.read_bytes().split(b"\n")[1:]
        except OSError:  # such as a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 7 and fields[3] == _LISTENING:
                host, _, number = fields[1].partition(b":")
                at = _address(host)
                if int(number, 16) == port and (at == address or at.is_unspecified):
                    yield int(fields[7])


def _text(address: tuple[Any, ...]) -> str:
    """Writes address and port as the kernel does, which `_address` reads."""
    raw = ipaddress.ip_address(address[0]).packed
    if sys.byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return f"{raw.hex().upper()}:{address[1]:04X}"


def _address(text: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Reads an address as the kernel writes it: words of 32 bits, each in the order of this machine."""
    raw = bytes.fromhex(text.decode())
    if sys.byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
