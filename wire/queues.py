"""Where to consume from and publish to. Queue info always arrives from the service; it is never our configuration.

Every `connection_url` holds a password. The types here keep it out of their `repr`, and nothing else prints them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_OPTIONS = frozenset(
    {"blocked_connection_timeout", "connection_attempts", "heartbeat", "retry_delay", "socket_timeout", "stack_timeout"}
)
"""Of a connection's URL: those of pika.URLParameters that are about time only."""


PORTS = {"amqp": 5672, "amqps": 5671}
"""Those of a broker's URL that names none."""
_INFOS = ("task_queue_info", "result_queue_info", "heartbeat_queue_info")
"""In `amqp_creds`."""


class QueueInfoError(ValueError):
    """Queue info that cannot be used; the text names the field, never its value."""


@dataclass(frozen=True, slots=True)
class Source:
    """A queue to consume from."""

    connection_url: str = field(repr=False)
    queue: str

    def at_port(self, port: int | None) -> Source:
        """The same at another port of the broker's, when one is given."""
        return self if port is None else replace(self, connection_url=_with_port(self.connection_url, port))


@dataclass(frozen=True, slots=True)
class Target:
    """An exchange to publish to, with the message properties that the service asks for."""

    connection_url: str = field(repr=False)
    exchange: str
    routing_key: str
    mandatory: bool = True
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndpointCredentials:
    """All that a user endpoint needs to talk to the service: `amqp_creds` of a start command."""

    endpoint_id: str
    tasks: Source
    results: Target
    heartbeats: Target


def read_source(info: object, where: str, port: int | None = None) -> Source:
    """The `Source` in queue info `info`. `where` names it in errors; `port`, when given, replaces the URL's port.

    Raises:
        QueueInfoError: a field is missing or of the wrong type.
    """
    return Source(_url(info, where, port), _text(info, "queue", where))


def read_target(info: object, where: str, port: int | None = None) -> Target:
    """The `Target` in queue info `info`; arguments and errors as for `read_source`."""
    publish = _get(info, "queue_publish_kwargs", where)
    inside = f"{where}.queue_publish_kwargs"
    properties = publish.get("properties") or {} if isinstance(publish, dict) else None
    if not isinstance(properties, dict):
        raise QueueInfoError(f"{inside}.properties: expected an object")
    return Target(
        connection_url=_url(info, where, port),
        exchange=_text(publish, "exchange", inside),
        routing_key=_text(publish, "routing_key", inside),
        mandatory=publish.get("mandatory") is not False,
        properties=properties,
    )


def read_credentials(creds: object, port: int | None = None) -> EndpointCredentials:
    """The credentials in the `amqp_creds` of a start command or a hand-over.

    Raises:
        QueueInfoError: a field is missing or of the wrong type.
    """
    endpoint_id = read_endpoint_id(creds)
    tasks, results, heartbeats = ((_get(creds, info, "amqp_creds"), f"amqp_creds.{info}", port) for info in _INFOS)
    return EndpointCredentials(
        endpoint_id=endpoint_id,
        tasks=read_source(*tasks),
        results=read_target(*results),
        heartbeats=read_target(*heartbeats),
    )


def credentials_at_port(creds: Mapping[str, Any], port: int | None) -> Mapping[str, Any]:
    """`creds`, which `read_credentials` takes, with another port in each URL, when one is given."""
    if port is None:
        return creds
    infos = {name: creds[name] for name in _INFOS}
    moved = {name: {**info, "connection_url": _with_port(info["connection_url"], port)} for name, info in infos.items()}
    return {**creds, **moved}


def read_endpoint_id(creds: object) -> str:
    """The endpoint's id in `amqp_creds`, as a canonical lower-case UUID."""
    text = _text(creds, "endpoint_id", "amqp_creds")
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise QueueInfoError("amqp_creds.endpoint_id: not a UUID") from None


def place(url: str) -> str:
    """Host and port of a broker's URL, for people: neither user nor password."""
    parts = urlsplit(url)
    return f"{parts.hostname} port {parts.port or PORTS.get(parts.scheme)}"


def _get(info: object, key: str, where: str) -> Any:
    if not isinstance(info, dict) or key not in info:
        raise QueueInfoError(f"{where}: missing {key!r}")
    return info[key]


def _text(info: object, key: str, where: str) -> str:
    value = _get(info, key, where)
    if not isinstance(value, str) or not value:
        raise QueueInfoError(f"{where}.{key}: expected a non-empty string")
    return value


def _url(info: object, where: str, port: int | None) -> str:
    url = _text(info, "connection_url", where)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise QueueInfoError(f"{where}.connection_url: not a URL") from None
    if parts.scheme not in ("amqp", "amqps") or not host:
        raise QueueInfoError(f"{where}.connection_url: expected amqp[s]://user:password@host:port/vhost")
    url = urlunsplit(parts._replace(query=_harmless(parts.query)))
    return url if port is None else _with_port(url, port)


def _harmless(query: str) -> str:
    """Without options that have whoever connects read files (`ssl_options`), or that nobody has heard of."""
    return urlencode([(key, value) for key, value in parse_qsl(query) if key in _OPTIONS])


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    user, at, host_port = parts.netloc.rpartition("@")
    host = host_port[: host_port.index("]") + 1] if host_port.startswith("[") else host_port.split(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{port}"))
