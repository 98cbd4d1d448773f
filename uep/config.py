"""Reads and checks the endpoint's configuration: the rendered YAML text of the hand-over.

Every key of the public user endpoint configuration is accepted. Those in `WITHOUT_EFFECT` change nothing here; `cli`
says so in the log. An unknown key is an error that names the nearest known one: a misspelt limit must not be silently
ignored. The engine's own options are checked by the engine (`uep.engines`).

The texts of `ConfigError` reach the user through the service: they speak of keys and values, never of paths.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from uep.idle import IdleLimits
from uep.log_file import Bounds

WITHOUT_EFFECT = frozenset(
    {
        "admins",
        "authentication_policy",
        "display_name",
        "environment",
        "heartbeat_threshold",
        "local_compute_services",
        "subscription_id",
    }
)
SHORTEST_PERIOD = 0.05
"""Seconds; the public package raises anything under 5 s to 5 s, tests need less."""

LEAST_LOG = 64 << 10
"""Bytes of `log_size`: what comes at once is in one file."""
MOST_LOGS = 100


class ConfigError(ValueError):
    """The configuration cannot be used; the text is for the user."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """`engine` is the engine's mapping with its `type`; `heartbeat_period` and `setup_timeout` are in seconds.

    setup_timeout: from check-in until tasks can run: `endpoint_setup`, and the engine's start. log: bounds of the log.
    python: what `uep.environments.wanted` reads. raw: the YAML text.
    """

    engine: Mapping[str, Any]
    raw: str = field(repr=False, default="")
    heartbeat_period: float = 30
    idle: IdleLimits = field(default_factory=IdleLimits)
    allowed_functions: frozenset[str] | None = None
    amqp_port: int | None = None
    endpoint_dir: str | None = None
    endpoint_log: str | None = None
    endpoint_setup: str | None = None
    endpoint_teardown: str | None = None
    python: Mapping[str, Any] | None = None
    setup_timeout: float = 300.0
    high_assurance: bool = False
    debug: bool = False
    log: Bounds = field(default_factory=Bounds)
    without_effect: tuple[str, ...] = ()


def parse(text: str) -> EndpointConfig:
    """Reads the configuration in YAML `text`.

    Raises:
        ConfigError: not YAML, unknown key, wrong type, or no engine.
    """
    data = _load(text)
    for key in data:
        if key not in _KNOWN:
            raise ConfigError(unknown("key", key, _KNOWN))
    engine = data.get("engine")
    if not isinstance(engine, dict) or not isinstance(engine.get("type"), str):
        raise ConfigError("the configuration needs an 'engine' with a 'type' (is the template's engine block missing?)")
    paths = _paths(data.get("paths") or {})
    values = {key: read(key, data[key]) for key, read in _READERS.items() if data.get(key) is not None}
    return EndpointConfig(
        engine=engine,
        raw=text,
        idle=IdleLimits(values.pop("idle_heartbeats_soft", 0), values.pop("idle_heartbeats_hard", 5760)),
        log=Bounds(values.pop("log_size", Bounds().size), values.pop("log_keep", Bounds().keep)),
        without_effect=tuple(sorted(k for k in data if k in WITHOUT_EFFECT and data[k] is not None)),
        **paths,
        **values,
    )


def amqp_port(text: str) -> int | None:
    """Reads that key alone, of a configuration that `parse` may refuse: through that port the service is told why."""
    try:
        port = _load(text).get("amqp_port")
        return None if port is None else _port("amqp_port", port)
    except ConfigError:
        return None


def unknown(what: str, name: object, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...]) -> str:
    """Says that a name is not among `known`, what they are, and which one is probably meant."""
    from difflib import get_close_matches

    near = get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {str(name)[:80]!r}{hint} known: {', '.join(sorted(known))}"


def _load(text: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise ConfigError(f"the configuration is not YAML: {e}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError("the configuration must be a mapping of keys to values")
    return data


def _paths(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("paths: expected a mapping")
    for key, path in value.items():
        if key not in _PATHS:
            raise ConfigError(unknown("key in paths", key, _PATHS))
        if path is not None and not isinstance(path, str):
            raise ConfigError(f"paths.{key}: expected text")
    return {key: path for key, path in value.items() if path is not None}


def _number(value: object) -> int | float | None:
    """A number, also one that is written as text, as the public package takes it; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and float(number).is_integer() else None


def _period(key: str, value: object) -> float:
    number = _number(value)
    if number is None or not SHORTEST_PERIOD <= number < 86400:
        raise ConfigError(f"{key}: expected seconds, at least {SHORTEST_PERIOD:g}, got {value!r}")
    return number  # 30 stays 30: heartbeats tell it


def _seconds(key: str, value: object) -> float:
    number = _number(value)
    if number is None or not 1 <= number <= 86400:
        raise ConfigError(f"{key}: expected seconds, 1 to 86400, got {value!r}")
    return float(number)


def _count(key: str, value: object) -> int:
    number = _integer(value)
    if number is None:
        raise ConfigError(f"{key}: expected a whole number, got {value!r}")
    return max(0, number)


def _size(key: str, value: object) -> int:
    text = re.fullmatch(r"([0-9]{1,9})([KMG]?)", str(value)) if isinstance(value, (str, int)) else None
    size = int(text[1]) * 1024 ** " KMG".index(text[2] or " ") if text else 0
    if size < LEAST_LOG:
        raise ConfigError(f"{key}: expected a size, at least 64K, such as 4M (powers of 1024), got {value!r}")
    return size


def _kept(key: str, value: object) -> int:
    number = _integer(value)
    if number is None or not 0 <= number <= MOST_LOGS:
        raise ConfigError(f"{key}: expected a whole number, 0 to {MOST_LOGS}, got {value!r}")
    return number


def _port(key: str, value: object) -> int:
    number = _integer(value)
    if number is None or not 0 < number < 65536:
        raise ConfigError(f"{key}: expected a port number, got {value!r}")
    return number


def _flag(key: str, value: object) -> bool:
    near = _FLAGS.get(str(value).lower()) if isinstance(value, (bool, int, str)) else None
    if near is None:
        raise ConfigError(f"{key}: expected true or false, got {value!r}")
    return near


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{key}: expected text, got {value!r}")
    return value


def _functions(key: str, value: object) -> frozenset[str]:
    try:
        return frozenset(str(uuid.UUID(v)) for v in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, AttributeError):
        raise ConfigError(f"{key}: expected a list of function ids") from None


def _mapping(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: expected a mapping, got {value!r}")
    return value


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "heartbeat_period": _period,
    "idle_heartbeats_soft": _count,
    "idle_heartbeats_hard": _count,
    "amqp_port": _port,
    "allowed_functions": _functions,
    "endpoint_setup": _text,
    "endpoint_teardown": _text,
    "python": _mapping,
    "setup_timeout": _seconds,
    "high_assurance": _flag,
    "debug": _flag,
    "log_size": _size,
    "log_keep": _kept,
}
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "y", "on", "t", "1"), True),
    **dict.fromkeys(("false", "no", "n", "off", "f", "0"), False),
}
"""What the public package takes for a flag, in quotes or not."""
_PATHS = frozenset({"endpoint_dir", "endpoint_log"})
_KNOWN = frozenset(_READERS) | WITHOUT_EFFECT | {"engine", "paths"}
