"""The service's answer to a registration: where commands come from, and where heartbeats go.

Read by the daemon, which is root, so it is read as a stranger's; `globus_sdk` is not loaded for it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mep.registration.errors import RegistrationError
from wire.queues import PORTS, QueueInfoError, Source, Target, read_source, read_target

MOST_IDENTITIES = 100
"""Linked identities that may use the endpoint of an ordinary user."""


@dataclass(frozen=True)
class Registration:
    """The endpoint as the service knows it: its id, where commands come from, where heartbeats go.

    broker: the broker's address without its secrets, and as_told: where commands come from with the port that the
    service has named; both for `mep check`.
    """

    endpoint_id: str
    commands: Source
    heartbeats: Target
    broker: str
    as_told: Source

    def addresses(self) -> bytes:
        """Where commands come from and heartbeats go, as JSON for the worker; with passwords."""
        return json.dumps(
            {name: dataclasses.asdict(getattr(self, name)) for name in ("commands", "heartbeats")}
        ).encode()


def read(answer: Any, port: int | None, known: str | None = None) -> Registration:
    """The answer, with the port of config.yaml (`amqp_port`) if that is set. known: the endpoint's earlier id.

    Raises:
        RegistrationError: it is none, or for another endpoint.
    """
    try:
        as_told = read_source(answer["command_queue_info"], "command_queue_info")
        commands = as_told.at_port(port)
        registration = Registration(
            endpoint_id=_endpoint_id(answer["endpoint_id"]),
            commands=commands,
            heartbeats=read_target(answer["heartbeat_queue_info"], "heartbeat_queue_info", port),
            broker=_address(commands.connection_url),
            as_told=as_told,
        )
    except (KeyError, TypeError) as e:
        text = f"the service's answer to the registration lacks {e}; is it a Globus Compute service?"
        raise RegistrationError(os.EX_PROTOCOL, text) from None
    except QueueInfoError as e:
        raise RegistrationError(os.EX_PROTOCOL, f"the service's answer to the registration: {e}") from None
    if known is not None and registration.endpoint_id != known:
        raise RegistrationError(os.EX_SOFTWARE, f"the service answers for {registration.endpoint_id}, not for {known}")
    return registration


def identities(answer: Any) -> dict[str, str]:
    """Whose login it is, as the service says: user names by the ids of identities. Raises RegistrationError."""
    try:
        return {str(uuid.UUID(each)): str(name) for each, name in list(answer.items())[:MOST_IDENTITIES]}
    except (ValueError, TypeError, AttributeError):
        raise RegistrationError(os.EX_PROTOCOL, "the service's answer has no identities of this login") from None


def _endpoint_id(said: object) -> str:
    try:
        return str(uuid.UUID(str(said)))
    except ValueError:
        text = f"the service's answer to the registration: endpoint_id is no UUID: {said!r:.80}"
        raise RegistrationError(os.EX_PROTOCOL, text) from None


def _address(connection_url: str) -> str:
    """Scheme, host and port of a broker's URL; the port that the scheme has when it names none."""
    parts = urlsplit(connection_url)
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return address if parts.port else f"{address.rstrip(':')}:{PORTS[parts.scheme]}"
