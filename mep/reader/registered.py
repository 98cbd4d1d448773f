"""What the service said at the registration: `endpoint.json` in the profile, for the next start, holds no secrets.

`connection.json` in the run folder (memory, root's), for `mep check`, holds the manager's password at the broker.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mep.profile import whole_file
from mep.profile.errors import ConfigError
from mep.profile.profile import OWNER, REGISTERED
from mep.reader.trusted import read_trusted

_CONNECTION = "connection.json"
_RULES = "expression_identity_mapping#1.0.0"


def endpoint_id(directory: Path) -> str | None:
    """The id that the profile was registered with, or None before its first registration. Raises ConfigError."""
    return _remembered(directory).endpoint_id


def profiles_of(config: Path, endpoint_id: str) -> list[Path]:
    """The profiles in folder `config` that were registered with this id, without those that cannot be read. A copy of a
    profile has its id."""
    wanted, found = str(uuid.UUID(endpoint_id)), []
    for path in sorted(config.glob(f"*/{REGISTERED}")):
        with contextlib.suppress(ConfigError, OSError):
            if _remembered(path.parent).endpoint_id == wanted:
                found.append(path.parent)
    return found


def broker_address(directory: Path) -> str | None:
    """Where the service last said that its broker is (`amqps://host:port`), or None. Raises ConfigError."""
    return _remembered(directory).broker


def owner_id(directory: Path, username: str) -> str | None:
    """The id of the owner's identity of that name, where the endpoint is an ordinary user's; None of any other.

    Raises ConfigError.
    """
    return next((each for each, name in _remembered(directory).owners.items() if name == username), None)


def remember(directory: Path, endpoint_id: str, broker: str, owners: Mapping[str, str]) -> None:
    """Remembers the id, so that the next start registers the same endpoint; the broker's address, for `check`; and for
    `map` and `explain` the names of its owner's identities, by their ids.

    Raises ConfigError: the folder cannot be written.
    """
    path = directory / REGISTERED
    try:
        facts = {"endpoint_id": endpoint_id, "broker": broker, **({"owners": dict(owners)} if owners else {})}
        whole_file.replace(path, json.dumps(facts))
    except OSError as e:
        raise ConfigError(path, [f"cannot be written: {e.strerror}; it must keep the endpoint's id"]) from None


def remember_owner(directory: Path, identities: Iterable[str], username: str) -> None:
    """Writes whose endpoint this is, where its manager is not root: an identity mapping that has the owner's identities
    become the owner's account, and nobody else.

    Raises ConfigError: the folder cannot be written.
    """
    path = directory / OWNER
    known = sorted(set(identities))
    rules = [{"source": "{id}", "match": each, "output": username, "literal": True} for each in known]
    try:
        whole_file.replace(path, json.dumps([{"DATA_TYPE": _RULES, "mappings": rules}], indent=2))
    except OSError as e:
        raise ConfigError(path, [f"cannot be written: {e.strerror}; it must keep whose endpoint this is"]) from None


def remember_connection(run_directory: Path, url: str, queue: str) -> None:
    """Remembers how the manager logs in at the broker. Nothing but `mep check` needs it: that it cannot be kept is no
    reason not to start."""
    with contextlib.suppress(OSError):
        whole_file.replace(run_directory / _CONNECTION, json.dumps({"connection_url": url, "queue": queue}))


def connection(run_directory: Path) -> object:
    """How the manager logged in at the broker last, as queue info; None when none has registered since the boot."""
    try:
        return json.loads((run_directory / _CONNECTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class _Remembered:
    """endpoint.json. owners: names of the owner's identities, by their ids."""

    endpoint_id: str | None = None
    broker: str | None = None
    owners: Mapping[str, str] = field(default_factory=dict)


def _remembered(directory: Path) -> _Remembered:
    """Raises ConfigError."""
    path = directory / REGISTERED
    if not path.exists() and not path.is_symlink():
        return _Remembered()
    remedy = "restore it, or delete it to register anew"
    try:
        facts = json.loads(read_trusted(path, remedy))
        return _Remembered(
            str(uuid.UUID(facts["endpoint_id"])),
            _address(facts["broker"]) if "broker" in facts else None,
            {str(uuid.UUID(each)): str(name) for each, name in facts.get("owners", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ConfigError(path, [f'expected {{"endpoint_id": "UUID"}}; {remedy}']) from None


def _address(url: str) -> str:
    """An address with a host and a port. Raises ValueError, TypeError, AttributeError."""
    parts = urlsplit(url)
    if not parts.hostname or len(parts.hostname) > 253 or not parts.port:
        raise ValueError("expected amqps://host:port")
    return url
