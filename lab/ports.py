"""Ports of 127.0.0.1 that nobody listens on."""

from __future__ import annotations

import random
import socket


def free_ports(count: int) -> list[int]:
    """So many, below the range from which the kernel takes the ports of outgoing connections: none of these, the
    attempts of whoever waits for a server to start included, can take the port while the server is down.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(15000, 32000)
        if port not in ports and is_free(port):
            ports.append(port)
    return ports


def is_free(port: int) -> bool:
    """Whether one could listen on it now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
