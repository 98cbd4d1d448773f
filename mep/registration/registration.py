"""Makes the endpoint known to the service: one REST call, through `globus_sdk`, as any client of the service.

`cli.run` calls it before the event loop starts, and remembers the id that it returns.
"""

from __future__ import annotations

import os
import platform
import pwd
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import globus_sdk

from mep import __version__
from mep.profile.profile import Profile
from mep.registration.errors import RegistrationError, told
from mep.registration.login import check_login, check_service, remedy, service_url
from wire.queues import PORTS, QueueInfoError, Source, Target, read_source, read_target

COMPATIBLE_VERSION = "4.19.0"
"""The version of the public package that we are like: the service compares it with its `min_ep_version`."""


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


def register(profile: Profile, app: globus_sdk.GlobusApp, known: str | None) -> Registration:
    """Registers the endpoint of `profile`, under its earlier id `known` if it has one.

    Raises:
        RegistrationError: no login, the service cannot be reached, or refuses, or its answer is none.
    """
    config = profile.config
    check_service(config)
    check_login(app, config)
    with (
        told(remedy(app, config), known, service_url(config)),
        globus_sdk.ComputeClientV3(app=app, base_url=service_url(config)) as client,
    ):
        answer = _ask(client, known, _document(profile))
    registration = _read(answer, profile.config.amqp_port)
    if known is not None and registration.endpoint_id != known:
        raise RegistrationError(os.EX_SOFTWARE, f"the service answers for {registration.endpoint_id}, not for {known}")
    return registration


def _ask(client: globus_sdk.ComputeClientV3, known: str | None, document: dict[str, Any]) -> Any:
    return (client.update_endpoint(known, document) if known else client.register_endpoint(document)).data


def _read(answer: Any, port: int | None) -> Registration:
    try:
        as_told = read_source(answer["command_queue_info"], "command_queue_info")
        commands = as_told.at_port(port)
        return Registration(
            endpoint_id=str(answer["endpoint_id"]),
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


def _address(connection_url: str) -> str:
    """Scheme, host and port of a broker's URL; the port that the scheme has when it names none."""
    parts = urlsplit(connection_url)
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return address if parts.port else f"{address.rstrip(':')}:{PORTS[parts.scheme]}"


def _document(profile: Profile) -> dict[str, Any]:
    config = profile.config
    document: dict[str, Any] = {
        "endpoint_name": profile.name,
        "display_name": config.display_name,
        "multi_user": True,
        "public": config.public,
        "high_assurance": config.high_assurance,
        "allowed_functions": None if config.allowed_functions is None else list(config.allowed_functions),
        "authentication_policy": config.authentication_policy,
        "subscription_uuid": config.subscription_id,
        "admins": None if config.admins is None else list(config.admins),
        "metadata": {
            "endpoint_version": COMPATIBLE_VERSION,
            "python_version": platform.python_version(),
            "hostname": socket.getfqdn(),
            "local_user": pwd.getpwuid(os.getuid()).pw_name,
            "endpoint_config": profile.config_text,
            "user_config_template": profile.templates[profile.template_name],
            "user_config_schema": profile.schema,
            "mep_version": __version__,
        },
    }
    return {key: value for key, value in document.items() if value is not None}
